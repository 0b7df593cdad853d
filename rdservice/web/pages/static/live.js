// Updates the parts of a page that are marked with data-live: requests them while the page is visible, and changes only
// what differs, in place, so that focus, open details and typed text stay.
"use strict";
(() => {
  const EVERY_MS = 5_000;
  const LONGEST_MS = 60_000;
  const part = document.querySelector("[data-live]");
  const announced = document.querySelector("[data-live-announce]");
  const lost = document.querySelector("[data-live-lost]");
  const ended = document.querySelector("[data-live-ended]");
  const address = new URL(location.href);
  address.searchParams.set("fragment", "1");
  address.hash = "";
  let etag = "";
  let pause = EVERY_MS;
  let timer = 0;
  let asking = false;

  const title = () => part.querySelector("[data-live-title], h1")?.textContent ?? "";

  async function ask() {
    if (asking || document.hidden) return;
    asking = true;
    clearTimeout(timer);
    try {
      const answer = await fetch(address, {
        headers: etag ? { "If-None-Match": etag } : {},
        redirect: "error",
        signal: AbortSignal.timeout(15_000),
      });
      if (answer.status === 401) return end();
      if (answer.status === 404) return location.reload();
      if (answer.status === 200) {
        etag = answer.headers.get("ETag") ?? "";
        show(await answer.text());
      } else if (answer.status !== 304) {
        throw new Error(`status ${answer.status}`);
      }
      pause = EVERY_MS;
      lost.hidden = true;
    } catch {
      pause = Math.min(pause * 2, LONGEST_MS);
      lost.hidden = false;
    } finally {
      asking = false;
    }
    timer = setTimeout(ask, pause);
  }

  function show(html) {
    const before = title();
    const fresh = part.cloneNode(false);
    fresh.append(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
    update(part, fresh);
    const after = title();
    if (after !== before) announced.textContent = after;
  }

  function end() {
    lost.hidden = true;
    ended.hidden = false;
    document.removeEventListener("visibilitychange", ask);
  }

  const key = (node) => node.dataset?.key ?? "";

  // Returns the index in `nodes` of the node that becomes `child`, or -1. A node with a key may be anywhere, another
  // element must come before the next one with a key, and a text must be first: there are texts between all elements.
  function placeOf(child, nodes) {
    for (const [place, node] of nodes.entries()) {
      if (node.nodeName === child.nodeName && key(node) === key(child)) return place;
      if (child.nodeType !== Node.ELEMENT_NODE || (!key(child) && key(node))) return -1;
    }
    return -1;
  }

  // Makes `old` like `fresh`, node by node.
  function update(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    for (const { name, value } of fresh.attributes)
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    const left = [...old.childNodes];
    for (const child of [...fresh.childNodes]) {
      const place = placeOf(child, left);
      if (place < 0) {
        old.insertBefore(child, left[0] ?? null);
        continue;
      }
      // Nodes before the match have been removed.
      for (const gone of left.splice(0, place)) gone.remove();
      update(left.shift(), child);
    }
    for (const gone of left) gone.remove();
  }

  document.addEventListener("visibilitychange", ask);
  timer = setTimeout(ask, EVERY_MS);
})();
