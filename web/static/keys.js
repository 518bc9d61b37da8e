// `/` goes to the filter; `g` and then a letter goes to a page.
const PAGES = { f: "/", h: "/hosts", i: "/history", b: "/branches", p: "/plan", q: "/queue" };

export function startKeys() {
  let waiting = 0;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target.closest("input, textarea, select");
    if (field) {
      if (event.key === "Escape") field.blur();
      return;
    }
    if (event.key === "/") {
      const filter = document.querySelector("[data-filter]");
      if (filter) {
        event.preventDefault();
        filter.focus();
        filter.select();
      }
    } else if (event.timeStamp - waiting < 1000 && PAGES[event.key]) {
      location.href = PAGES[event.key];
    }
    waiting = event.key === "g" ? event.timeStamp : 0;
  });
  addEventListener("change", (event) => {
    if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  });
  // an address without empty filters is the one people pass on
  addEventListener("submit", (event) => {
    for (const field of event.target.elements) if (field.name && !field.value) field.disabled = true;
  });
  addEventListener("pageshow", () => {
    for (const field of document.querySelectorAll("form.filter :disabled")) field.disabled = false;
  });
}
