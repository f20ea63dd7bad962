const items = [...document.querySelectorAll("details.item")];
const bar = document.querySelector(".filters");
const [label, group, words] = bar.querySelectorAll("select, input");
const [opens] = bar.querySelectorAll("button");
const count = bar.querySelector("output");
const MOST_OPEN = 50;

function has(list, value) {
  return !value || list.split(" ").includes(value);
}

function filter() {
  const said = words.value.trim().toLowerCase();
  let shown = 0;
  for (const item of items) {
    const fits = has(item.dataset.labels, label.value) && has(item.dataset.group, group.value) &&
      (!said || item.textContent.toLowerCase().includes(said));
    item.hidden = !fits;
    shown += fits;
  }
  count.textContent = `${shown} of ${items.length}`;
}

opens.addEventListener("click", () => {
  const shown = items.filter((item) => !item.hidden);
  const open = !shown.some((item) => item.open);
  shown.slice(0, open ? MOST_OPEN : items.length).forEach((item) => { item.open = open; });
});
bar.addEventListener("input", filter);
bar.hidden = false;
filter();
