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
}
