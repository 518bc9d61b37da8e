// Keeps the part of a page that changes up to date: on every event, the same page's fragment is fetched and merged in.
import { morph } from "./morph.js";
import { tick } from "./times.js";
import { startViewers } from "./viewer.js";

const GATHER_MS = 150; // events that come together make one fetch
const AGAIN_MS = 5000; // after a refusal
const SURE_MS = 30000; // nothing heard for so long: look anyway

let source = null;
let address = "";
let seen = "";
let timer = 0;
let sure = 0;
let busy = false;
let more = false;

const part = () => document.getElementById("live");

function say(text, state) {
  const place = document.getElementById("link-state");
  if (place.textContent !== text) place.textContent = text;
  place.dataset.state = state;
}

async function refresh() {
  if (busy) {
    more = true;
    return;
  }
  busy = true;
  more = false;
  try {
    const url = new URL(location.href);
    url.hash = "";
    url.searchParams.set("fragment", part().dataset.part);
    const answer = await fetch(url, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(`${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const want = page.getElementById("live");
    if (want) {
      morph(part(), want);
      if (part().dataset.title) document.title = part().dataset.title;
      tick();
      startViewers();
      listen();
    }
  } catch {
    say("reconnecting", "lost");
    setTimeout(soon, AGAIN_MS);
  } finally {
    busy = false;
    if (more) soon();
  }
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(refresh, GATHER_MS);
  clearTimeout(sure);
  sure = setTimeout(soon, SURE_MS);
}

function stop(text, state) {
  source?.close();
  source = null;
  clearTimeout(sure);
  say(text, state);
}

// A browser opens few connections to one server, so pages nobody looks at keep none.
function listen() {
  const wanted = part()?.dataset.events ?? "";
  if (!wanted || document.hidden) {
    if (source || wanted) stop(wanted ? "paused" : "", "off");
    else say("", "off");
    return;
  }
  if (source && address === wanted && source.readyState !== EventSource.CLOSED) return;
  source?.close();
  address = wanted;
  const url = new URL(wanted, location.href);
  url.searchParams.set("after", seen || part().dataset.after);
  const mine = new EventSource(url);
  source = mine;
  mine.onopen = () => say("live", "on");
  mine.onmessage = (event) => {
    seen = event.lastEventId || seen;
    soon();
  };
  mine.onerror = () => {
    if (source !== mine) return;
    say("reconnecting", "lost");
    if (mine.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS);
  };
  clearTimeout(sure);
  sure = setTimeout(soon, SURE_MS);
}

export function startLive() {
  if (!part()) return;
  listen();
  document.addEventListener("visibilitychange", () => {
    listen();
    if (!document.hidden && source) soon();
  });
  addEventListener("pagehide", () => stop("", "off"));
  addEventListener("pageshow", (event) => event.persisted && listen());
}
