() => {
  const KEYS = {
    k: '#keep', e: '#edit', d: '#drop', u: '#undo', s: '#skip',
    ArrowRight: '#skip', ArrowLeft: '#back',
  };
  const ANSWER_MS = 5000;
  const find = (name) => document.querySelector(name);
  const boxes = () => [...document.querySelectorAll('#editor textarea')];
  const note = () => find('#note textarea, #note input');
  const editing = () => document.body.classList.contains('editing');
  const fill = (box, text) => {
    box.value = text;
    box.dispatchEvent(new Event('input', {bubbles: true}));
  };

  // What is typed and not saved outlives a reload, for each candidate.
  let place = {};
  let before = [];
  const draft = (id) => `review ${id}`;
  const changed = () => boxes().some((box, n) => box.value !== before[n]);
  const remember = () => {
    if (!place.id) return;
    const said = {note: note().value};
    if (editing() && changed()) said.turns = boxes().map((box) => box.value);
    if (said.note || said.turns) sessionStorage[draft(place.id)] = JSON.stringify(said);
    else sessionStorage.removeItem(draft(place.id));
  };
  const restore = () => {
    const said = JSON.parse(sessionStorage[draft(place.id)] ?? '{}');
    if (said.note) fill(note(), said.note);
    if (!said.turns) return;
    edit(true);
    boxes().forEach((box, n) => fill(box, said.turns[n] ?? box.value));
  };
  document.addEventListener('input', (event) => {
    if (event.isTrusted && event.target.closest?.('#note, #editor')) remember();
  });

  const edit = (on) => {
    document.body.classList.toggle('editing', on);
    find('#restore')?.classList.toggle('unused', !find('#original textarea')?.value);
    if (on) boxes().at(-1)?.focus({preventScroll: true});
    else document.activeElement?.blur?.();
  };
  const cancel = () => {
    if (changed() && !confirm('Leave the edit unsaved?')) return;
    boxes().forEach((box, n) => fill(box, before[n]));
    edit(false);
    remember();
  };

  // A key acts on what is on the screen, so the next one waits for the answer to the last. Where none
  // comes, be the server away or its answer lost, the page asks how things stand once it can.
  let waiting = 0;
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
    const local = {
      edit: () => edit(true),
      cancel,
      restore: () => JSON.parse(find('#original textarea').value || '[]')
        .forEach((text, n) => fill(boxes()[n], text)),
    }[button.id];
    if (local) return local();
    if (waiting) {
      event.preventDefault();
      event.stopImmediatePropagation();
    } else wait();
  }, {capture: true});

  window.limaReview = {
    shown(text) {
      const now = JSON.parse(text || '{}');
      clearTimeout(waiting);
      waiting = 0;
      document.body.classList.remove('late');
      if (now.saved) sessionStorage.removeItem(draft(now.saved));
      const other = now.id !== place.id;
      const query = new URLSearchParams();
      if (now.view && now.view !== 'open') query.set('view', now.view);
      if (now.source) query.set('source', now.source);
      if (now.id) query.set('c', now.id);
      history.replaceState(null, '', `${location.pathname}${query.size ? `?${query}` : ''}`);
      place = now;
      document.body.classList.toggle('none-left', !now.id);
      // The components have their new values in the next frames.
      setTimeout(() => {
        if (place !== now) return;
        if (other || now.saved === now.id) {
          edit(false);
          before = boxes().map((box) => box.value);
          window.scrollTo(0, 0);
          if (now.id) restore();
        }
      }, 60);
    },
  };

  document.addEventListener('keydown', (event) => {
    const typing = event.target.closest?.('input, textarea, select, [contenteditable=true]');
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && editing()) {
      event.preventDefault();
      press('#save');
    } else if (event.key === 'Escape' && editing()) cancel();
    else if (typing && ['Escape', 'Enter'].includes(event.key) && typing === note()) {
      event.preventDefault();
      typing.blur();
    } else if (!typing && !editing() && !event.repeat &&
        !(event.ctrlKey || event.metaKey || event.altKey)) {
      if (event.key === 'n') {
        event.preventDefault();
        note()?.focus();
      } else if (KEYS[event.key]) {
        event.preventDefault();
        press(KEYS[event.key]);
      }
    }
  }, {capture: true});
}
