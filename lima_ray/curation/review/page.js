() => {
  const KEYS = {
    k: '#keep', e: '#edit', d: '#drop', u: '#undo', s: '#skip',
    ArrowRight: '#skip', ArrowLeft: '#back',
  };
  const {find, fill, remember, press, begin} = window.limaPage;
  const boxes = () => [...document.querySelectorAll('#editor textarea')];
  const editing = () => document.body.classList.contains('editing');
  let before = [];
  const changed = () => boxes().some((box, n) => box.value !== before[n]);

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

  begin({
    name: 'review',
    keys: () => KEYS,
    noteKey: 'n',
    local: {
      edit: () => edit(true),
      cancel,
      restore: () => JSON.parse(find('#original textarea').value || '[]')
        .forEach((text, n) => fill(boxes()[n], text)),
    },
    draft(said) {
      if (editing() && changed()) said.turns = boxes().map((box) => box.value);
    },
    restore(said) {
      if (!said.turns) return;
      edit(true);
      boxes().forEach((box, n) => fill(box, said.turns[n] ?? box.value));
    },
    shown(now) {
      const query = new URLSearchParams();
      if (now.view && now.view !== 'open') query.set('view', now.view);
      if (now.source) query.set('source', now.source);
      if (now.id) query.set('c', now.id);
      history.replaceState(null, '', `${location.pathname}${query.size ? `?${query}` : ''}`);
    },
    opened() {
      edit(false);
      before = boxes().map((box) => box.value);
    },
    busy: editing,
    keydown(event) {
      if (!editing()) return false;
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        press('#save');
      } else if (event.key === 'Escape') cancel();
      else return false;
      return true;
    },
  });
}
