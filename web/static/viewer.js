// Logs and consoles that grow: what comes is added at the end as text, and followed while the reader is there.
const MOST = 400_000; // characters kept on the page; the plain text has everything
const AGAIN_MS = 5000;

const viewers = new Map();

class Viewer {
  constructor(section) {
    this.section = section;
    this.pre = section.querySelector("pre");
    this.follow = section.querySelector("[data-follow]");
    this.said = section.querySelector("[data-said]");
    this.details = section.closest("details");
    this.offset = null;
    this.source = null;
    this.over = section.hasAttribute("data-final");
    this.length = this.pre.textContent.length;
    this.details?.addEventListener("toggle", () => this.update());
    this.follow.addEventListener("change", () => this.down());
    this.pre.addEventListener("scroll", () => {
      const end = this.pre.scrollHeight - this.pre.scrollTop - this.pre.clientHeight < 8;
      if (end !== this.follow.checked && !this.moving) this.follow.checked = end;
      this.moving = false;
    });
    if (this.over) this.down();
    this.update();
  }

  update() {
    const wanted = !this.over && !document.hidden && (this.details?.open ?? true) && this.section.isConnected;
    if (wanted && !this.source) this.open();
    if (!wanted && this.source) this.close();
    if (wanted || this.over) this.down();
  }

  open() {
    const url = new URL(this.section.dataset.stream, location.href);
    if (this.offset !== null) url.searchParams.set("from", this.offset);
    const source = new EventSource(url);
    this.source = source;
    source.onopen = () => (this.said.textContent = "live");
    source.onmessage = (event) => {
      this.offset = event.lastEventId;
      this.add(JSON.parse(event.data));
    };
    source.addEventListener("end", () => {
      this.over = true;
      this.close();
      this.said.textContent = this.length ? "complete" : "empty";
    });
    source.onerror = () => {
      this.said.textContent = "reconnecting";
      if (source.readyState === EventSource.CLOSED) {
        this.source = null;
        setTimeout(() => this.update(), AGAIN_MS);
      }
    };
  }

  close() {
    this.source?.close();
    this.source = null;
    this.said.textContent = this.over ? this.said.textContent : "paused";
  }

  add({ text, skipped, reset }) {
    if (reset || this.offset === null) this.empty();
    if (skipped) text = `[… ${skipped.toLocaleString("en")} bytes before this are in the plain text …]\n${text}`;
    this.pre.append(document.createTextNode(text));
    this.length += text.length;
    while (this.length > MOST && this.pre.childNodes.length > 1) {
      this.length -= this.pre.firstChild.length;
      this.pre.firstChild.remove();
    }
    this.down();
  }

  empty() {
    this.pre.replaceChildren();
    this.length = 0;
  }

  down() {
    if (!this.follow.checked) return;
    const end = this.pre.scrollHeight - this.pre.clientHeight;
    if (Math.abs(this.pre.scrollTop - end) < 1) return;
    this.moving = true; // this scrolling is ours, not the reader's
    this.pre.scrollTop = end;
  }
}

export function startViewers() {
  for (const [section, viewer] of viewers)
    if (!section.isConnected) {
      viewer.close();
      viewers.delete(section);
    }
  for (const section of document.querySelectorAll("[data-stream]"))
    if (!viewers.has(section)) viewers.set(section, new Viewer(section));
}

// The step an address points at is opened.
export function openTarget() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const details = target.matches("details") ? target : target.querySelector("details");
  if (details) details.open = true;
  target.scrollIntoView({ block: "nearest" });
}

document.addEventListener("visibilitychange", () => viewers.forEach((viewer) => viewer.update()));
addEventListener("pagehide", () => viewers.forEach((viewer) => viewer.close()));
addEventListener("pageshow", (event) => event.persisted && viewers.forEach((viewer) => viewer.update()));
