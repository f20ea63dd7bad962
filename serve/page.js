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
}
