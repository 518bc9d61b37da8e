// Keeps "3 min ago" and the time that something has been running true, by the server's clock.
const root = document.documentElement;
const skew = Date.now() - Date.parse(root.dataset.now);
const two = (number) => String(number).padStart(2, "0");

// the same words as web/filters.py
export function duration(seconds) {
  if (seconds < 9.95) return `${Math.max(seconds, 0).toFixed(1)}s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h ${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86400)}d ${two(Math.floor((whole % 86400) / 3600))}h`;
}

export function ago(seconds) {
  if (seconds < 10) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 14 * 86400) return `${Math.floor(seconds / 86400)} days ago`;
  return "";
}

function write(element, text) {
  if (text && element.textContent !== text) element.textContent = text;
}

export function tick() {
  const now = Date.now() - skew;
  for (const element of document.querySelectorAll("[data-since]"))
    write(element, duration((now - Date.parse(element.dataset.since)) / 1000));
  for (const element of document.querySelectorAll("time[data-ago]"))
    write(element, ago((now - Date.parse(element.dateTime)) / 1000));
}

export function startTimes() {
  tick();
  setInterval(tick, 1000);
}
