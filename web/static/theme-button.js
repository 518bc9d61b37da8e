// The button goes round: as the system has it, light, dark.
const NEXT = { "": "light", light: "dark", dark: "" };
const WORD = { "": "auto", light: "light", dark: "dark" };

export function startTheme() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const show = () => (button.textContent = WORD[root.dataset.theme ?? ""]);
  button.addEventListener("click", () => {
    const theme = NEXT[root.dataset.theme ?? ""];
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // not remembered, then
    }
    show();
  });
  show();
}
