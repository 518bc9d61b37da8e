// Makes one tree of elements like another with the fewest changes, so that what a reader has opened, selected,
// scrolled or focused stays. Elements are matched by id where they have one, else by place.

export function morph(have, want) {
  if (have.nodeType !== want.nodeType || have.nodeName !== want.nodeName || have.id !== want.id) {
    have.replaceWith(want);
    return;
  }
  if (have.nodeType !== Node.ELEMENT_NODE) {
    if (have.data !== want.data) have.data = want.data;
    return;
  }
  if (have.hasAttribute("data-keep")) return;
  attributes(have, want);
  children(have, want);
}

function attributes(have, want) {
  // the reader's choice of what is open stands, until a step goes wrong
  const details = have.nodeName === "DETAILS";
  const opens = details && want.dataset.auto && want.dataset.auto !== have.dataset.auto;
  const status = want.dataset?.status;
  if (status && status !== have.dataset.status) blink(have);
  for (const { name, value } of want.attributes)
    if (!(details && name === "open") && have.getAttribute(name) !== value) have.setAttribute(name, value);
  for (const { name } of [...have.attributes])
    if (!(details && name === "open") && !want.hasAttribute(name)) have.removeAttribute(name);
  if (opens) have.open = true;
}

function blink(element) {
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches)
    element.animate([{ opacity: 0.3 }, { opacity: 1 }], { duration: 500 });
}

function children(have, want) {
  const byId = new Map();
  for (const child of have.children) if (child.id) byId.set(child.id, child);
  const wanted = new Set([...want.children].map((child) => child.id).filter(Boolean));
  let place = have.firstChild;
  for (const next of [...want.childNodes]) {
    // what will not be wanted at all gives way to what is
    while (place && place.id && !wanted.has(place.id)) {
      const gone = place;
      place = place.nextSibling;
      gone.remove();
    }
    const same = next.id ? byId.get(next.id) : undefined;
    if (same) {
      if (same === place) place = place.nextSibling;
      else have.insertBefore(same, place);
      morph(same, next);
    } else if (!next.id && place && !place.id && place.nodeName === next.nodeName) {
      const here = place;
      place = place.nextSibling;
      morph(here, next);
    } else {
      have.insertBefore(next, place);
    }
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}
