() => {
  const {begin, find} = window.limaPage;
  const TAKEN = ['u', 's', 'c'];
  const answers = () => [...document.querySelectorAll('#choices button')];
  begin({
    name: 'study',
    noteKey: 'c',
    keys() {
      const keys = {u: '#undo', s: '#skip', ArrowLeft: '#back', ArrowRight: '#forward'};
      answers().forEach((button, n) => {
        const letter = button.textContent.trim()[0].toLowerCase();
        keys[n + 1] = `#${button.id}`;
        if (!TAKEN.includes(letter)) keys[letter] = `#${button.id}`;
      });
      return keys;
    },
    shown(now) {
      history.replaceState(null, '', `${location.pathname}${now.id ? `?n=${now.id}` : ''}`);
    },
    opened(now) {
      document.activeElement?.blur?.();
      // Whoever has read what is asked, need not see it at every question.
      const said = localStorage['study told'];
      if (now.id) find('.told').open = said ? said === 'open' : now.id < 2;
    },
  });
  document.addEventListener('click', (event) => {
    const told = event.target.closest?.('.told summary')?.parentElement;
    if (told) localStorage['study told'] = told.open ? 'read' : 'open';
  });
}
