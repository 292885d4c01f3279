// A written text as pieces: hover, touch or focus one for its probability and the alternatives.
// The text is one stop of the Tab key; the arrow keys move within it.
"use strict";

holo.percent = logprob => {
  const p = Math.exp(logprob);
  return p >= 0.0005 ? `${(100 * p).toFixed(p >= 0.0995 ? 0 : 1)} %` : "< 0.1 %";
};

// A token as a reader can see it. A part of a character has no text of its own: its bytes are named.
holo.tokenName = ({ token, bytes }) => {
  if (token.startsWith("bytes:")) {
    const hex = [...token.matchAll(/\\x(..)/g)].map(found => found[1].toUpperCase()).join(" ");
    return { name: holo.fill(holo.say("part of a character ({0})"), hex), quiet: true };
  }
  if (bytes && !bytes.length) return { name: token, quiet: true };
  return { name: token.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥"), quiet: false };
};

holo.popover = (() => {
  const box = holo.element("div", { id: "token", hidden: true });
  box.setAttribute("role", "status");
  document.body.append(box);
  const row = (entry, chosen) => {
    const { name, quiet } = holo.tokenName(entry);
    const bar = holo.element("i");
    bar.style.width = `${100 * Math.exp(entry.logprob)}%`;
    const made = holo.element("li", {}, holo.element("span", { className: quiet ? "name quiet" : "name", textContent: name }),
      holo.element("span", { className: "share" }, bar), holo.element("span", { className: "percent", textContent: holo.percent(entry.logprob) }));
    if (chosen) made.setAttribute("aria-current", "true");
    return made;
  };
  const show = (piece, at) => {
    const lists = piece.tokens.map(token => {
      const others = token.top.filter(other => other.token !== token.token);
      const entries = token.logprob === null ? [] : [token, ...others].sort((a, b) => b.logprob - a.logprob);
      return holo.element("ol", {}, ...entries.map(entry => row(entry, entry === token)));
    });
    if (!lists.length) return hide();
    box.replaceChildren(...lists);
    box.hidden = false;
    const place = at.getBoundingClientRect(), size = box.getBoundingClientRect();
    const below = place.bottom + size.height + 10 < innerHeight;
    box.style.left = `${Math.max(8, Math.min(place.left, document.documentElement.clientWidth - size.width - 8))}px`;
    box.style.top = `${below ? place.bottom + 6 : Math.max(8, place.top - size.height - 6)}px`;
  };
  const hide = () => { box.hidden = true; };
  addEventListener("scroll", hide, true);
  return { show, hide };
})();

// Makes the element that shows a text; `add(piece)` shows one more piece of it.
holo.tokenText = pieces => {
  const text = holo.element("div", { className: "said", tabIndex: 0, role: "group" });
  text.setAttribute("aria-label", holo.say("Answer. The arrow keys show the probability of each token."));
  let shown = [], at = -1;
  const mark = i => {
    text.children[at]?.classList.remove("at");
    at = i;
    const span = text.children[i];
    if (!span) return holo.popover.hide();
    span.classList.add("at");
    span.scrollIntoView({ block: "nearest" });
    return holo.popover.show(shown[i], span);
  };
  const add = piece => {
    const end = !piece.text;
    const span = holo.element("span", { textContent: end ? "■" : piece.text, className: end ? "end" : "" });
    if (end) span.setAttribute("aria-label", holo.say("end of the text"));
    const lowest = Math.min(0, ...piece.tokens.map(token => token.logprob ?? 0));
    span.style.setProperty("--doubt", `${Math.round(Math.min(45, -lowest * 9))  /* more would hide the text */}%`);
    shown.push(piece);
    text.append(span);
  };
  const index = event => [...text.children].indexOf(event.target);
  text.addEventListener("pointerover", event => { if (event.pointerType === "mouse" && index(event) >= 0) mark(index(event)); });
  text.addEventListener("pointerleave", () => { if (document.activeElement !== text) mark(-1); });
  text.addEventListener("click", event => { if (index(event) >= 0) mark(index(event)); });
  text.addEventListener("blur", () => mark(-1));
  text.addEventListener("keydown", event => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (event.key === "Escape" && at >= 0) {
      event.stopPropagation();
      mark(-1);
    } else if (to !== undefined && shown.length) {
      event.preventDefault();
      mark(Math.max(0, Math.min(shown.length - 1, to)));
    }
  });
  pieces.forEach(add);
  return { element: text, add };
};
