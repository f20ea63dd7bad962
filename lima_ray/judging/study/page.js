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
      if (now.id > 1 && localStorage['study told'] === undefined) find('.told').open = false;
    },
  });
  document.addEventListener('toggle', (event) => {
    if (event.target.matches?.('.told')) localStorage['study told'] = event.target.open ? 'open' : 'read';
  }, {capture: true});
  if (localStorage['study told'] === 'read') find('.told').open = false;
}
