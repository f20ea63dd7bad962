() => {
  const key = 'lima_theme';
  const system = window.matchMedia('(prefers-color-scheme: dark)');
  const wanted = () => localStorage.getItem(key) ?? (system.matches ? 'dark' : 'light');
  const apply = () => document.body.classList.toggle('dark', wanted() === 'dark');
  window.limaTheme = {
    toggle() {
      localStorage.setItem(key, document.body.classList.contains('dark') ? 'light' : 'dark');
      apply();
    },
  };
  system.addEventListener('change', apply);
  apply();

  // On a phone the left bar covers the conversation, so it opens only when it is asked for.
  const narrow = window.matchMedia('(max-width: 767px)');
  const closeLeft = () => document.querySelector('#left.open .toggle-button')?.click();
  if (narrow.matches) closeLeft();
  document.addEventListener('click', (event) => {
    if (narrow.matches && event.target.closest?.('#past label, #new')) closeLeft();
  });

  // The chat has each message as Markdown. Its text as it was sent, and what a person made of it,
  // stand in #texts: [text, [what is lost with it]] for each message.
  const texts = () => JSON.parse(document.querySelector('#texts textarea')?.value || '[]');
  const rows = () => [...document.querySelectorAll('#chat .message-row')];
  const fill = (box, text) => {
    box.value = text;
    box.dispatchEvent(new Event('input', {bubbles: true}));
  };
  let edited = 0;
  const showWords = () => {
    const words = texts();
    for (const [place, row] of rows().entries()) {
      const text = words[place]?.[0];
      if (!text) continue;
      const box = row.querySelector('textarea:not([data-filled])');
      if (box) {
        box.dataset.filled = 'yes';
        edited = place;
        fill(box, text);
      }
      const label = row.querySelector('[data-testid]');
      const who = place % 2 ? 'reply' : 'message';
      if (label) label.setAttribute('aria-label', `${who}: ${text}`);
    }
  };
  let due = false;
  new MutationObserver(() => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; showWords(); });
  }).observe(document.body, {childList: true, subtree: true});

  // Copying a message copies its text. The chat draws an edited message before the server has
  // seen it, so it is sent letter by letter (lima_ray/web/markdown.py: `typed`).
  const plain = (text) => '&#8203;' + text.replace(/[^A-Za-z0-9]/gu, (c) => `&#${c.codePointAt()};`);
  let copied = null;
  document.addEventListener('click', (event) => {
    const button = event.target.closest?.('#chat .message-buttons button');
    let row = button?.closest('.message-buttons').previousElementSibling;
    while (row && !row.matches('.message-row')) row = row.previousElementSibling;
    copied = row ? texts()[rows().indexOf(row)]?.[0] ?? null : null;
    setTimeout(() => { copied = null; });
    const box = row?.querySelector('textarea');
    if (box) fill(box, plain(box.value));
  }, {capture: true});
  document.addEventListener('copy', (event) => {
    if (copied === null) return;
    event.clipboardData.setData('text/plain', copied);
    event.preventDefault();
  });
  if (navigator.clipboard) {
    const write = navigator.clipboard.writeText.bind(navigator.clipboard);
    navigator.clipboard.writeText = (text) => write(copied ?? text);
  }

  // What would lose a person's own work asks first.
  const list = (things) => [...new Set(things)].join(' and ');
  window.limaChat = {
    mayLose(what) {
      if (what === 'delete') return confirm('Delete this conversation for good?');
      const words = texts();
      const from = what === 'edit' ? edited + 1 : words.length - 1;
      const made = list(words.slice(from).flatMap(([, things]) => things));
      if (what === 'undo' && words.length <= 2) {
        return confirm(
          'This is the only exchange: taking it back deletes the conversation and its title' +
          (made ? `, with ${made}` : '') +
          '. Your message goes back into the box. Take it back?');
      }
      if (what === 'edit' && edited % 2) return true;
      if (what === 'edit' && words.length - from > 1) {
        return confirm(
          `The ${words.length - from} messages after this one are replaced by a new reply` +
          (made ? `; with them goes ${made}` : '') + '. Go on?');
      }
      return !made || confirm(`This replaces the reply, and ${made} is lost. Go on?`);
    },
  };

  // Text that was typed and not sent outlives a reload.
  const boxes = ['#composer textarea', '#compare-composer textarea'];
  window.addEventListener('pagehide', () => {
    for (const box of boxes) sessionStorage[box] = document.querySelector(box)?.value ?? '';
  });
  const restore = () => {
    if (!document.querySelector('#model input')?.value) return;
    clearInterval(restoring);
    for (const name of boxes) {
      const box = document.querySelector(name), text = sessionStorage[name] ?? '';
      sessionStorage.removeItem(name);
      if (box && text.trim() && !box.value.includes(text)) {
        fill(box, box.value ? `${box.value}\n\n${text}` : text);
      }
    }
  };
  const restoring = setInterval(restore, 200);
}
