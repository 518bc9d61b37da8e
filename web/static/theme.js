// Sets the chosen colours before anything is painted. Everything else is in the modules.
(() => {
  let theme = "";
  try {
    theme = localStorage.getItem("theme") || "";
  } catch {
    // storage may be forbidden; then the system decides
  }
  const root = document.documentElement;
  root.classList.add("with-js");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
})();
