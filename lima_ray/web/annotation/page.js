() => {
  // A page of its own calls limaPage.begin with what differs:
  //   name             of its drafts
  //   keys(), noteKey  selectors of buttons by key, and the key that leads to the remark
  //   local            what a button does that needs no server, by its id
  //   draft(said), restore(said)   more fields of a draft
  //   shown(now), opened(now)      something is on the screen; its components have their values
  //   busy(), keydown(event)       whether keys are for a text; keys beside the table
  const ANSWER_MS = 5000;
  let page;
  let place = {};
  let waiting = 0;
  const find = (name) => document.querySelector(name);
  const note = () => find('#note textarea, #note input');
  const fill = (box, text) => {
    box.value = text;
    box.dispatchEvent(new Event('input', {bubbles: true}));
  };

  // What is typed and not saved outlives a reload, for each item.
  const draft = (id) => `${page.name} ${id}`;
  const remember = () => {
    if (!place.id) return;
    const said = {note: note().value};
    page.draft?.(said);
    if (Object.values(said).some(Boolean)) sessionStorage[draft(place.id)] = JSON.stringify(said);
    else sessionStorage.removeItem(draft(place.id));
  };
  const restore = () => {
    const said = JSON.parse(sessionStorage[draft(place.id)] ?? '{}');
    if (said.note) fill(note(), said.note);
    page.restore?.(said);
  };
  document.addEventListener('input', (event) => {
    if (event.isTrusted && event.target.closest?.('#note, #editor')) remember();
  });

  // A key acts on what is on the screen, so the next one waits for the answer to the last. Where none
  // comes, be the server away or its answer lost, the page asks how things stand once it can.
  const wait = () => {
    clearTimeout(waiting);
    waiting = setTimeout(ask, ANSWER_MS);
  };
  const ask = async () => {
    waiting = 0;
    document.body.classList.add('late');
    const there = await fetch('login', {cache: 'no-store'}).then((r) => r.ok, () => false);
    if (there) find('#again').click();
    if (document.body.classList.contains('late')) setTimeout(() => waiting || ask(), ANSWER_MS);
  };
  const press = (name) => {
    const button = find(name);
    if (!waiting && button?.offsetParent) button.click();
  };
  document.addEventListener('click', (event) => {
    const button = event.target.closest?.('#actions button, #begin');
    if (!button) return;
    if (page.local?.[button.id]) return page.local[button.id]();
    if (waiting) {
      event.preventDefault();
      event.stopImmediatePropagation();
    } else wait();
  }, {capture: true});

  window.limaPage = {
    find, fill, remember, press,
    begin(own) { page = own; },
    shown(text) {
      const now = JSON.parse(text || '{}');
      clearTimeout(waiting);
      waiting = 0;
      document.body.classList.remove('late');
      if (now.saved) sessionStorage.removeItem(draft(now.saved));
      const other = now.id !== place.id;
      place = now;
      document.body.classList.toggle('none-left', !now.id);
      page.shown?.(now);
      // The components have their new values in the next frames; a page that is just opened has
      // none of them for a while.
      const open = () => {
        if (place !== now || !(other || now.saved === now.id)) return;
        if (now.id && !note()) return void setTimeout(open, 60);
        page.opened?.(now);
        window.scrollTo(0, 0);
        if (now.id) restore();
      };
      setTimeout(open, 60);
    },
  };

  document.addEventListener('keydown', (event) => {
    const typing = event.target.closest?.('input, textarea, select, [contenteditable=true]');
    if (page.keydown?.(event)) return;
    if (typing && ['Escape', 'Enter'].includes(event.key) && typing === note()) {
      event.preventDefault();
      typing.blur();
    } else if (!typing && !page.busy?.() && !event.repeat &&
        !(event.ctrlKey || event.metaKey || event.altKey)) {
      if (event.key === page.noteKey) {
        event.preventDefault();
        note()?.focus();
      } else if (page.keys()[event.key]) {
        event.preventDefault();
        press(page.keys()[event.key]);
      }
    }
  }, {capture: true});
}
