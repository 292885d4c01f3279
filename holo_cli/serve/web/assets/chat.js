// The chat page: messages, branches, the composer, and the panel of what happens inside.
"use strict";
(() => {
  const id = holo.id;
  const saved = name => JSON.parse(holo.stored("sessionStorage", `holo.${name}`) || "null");
  const save = (name, value) => holo.stored("sessionStorage", `holo.${name}`, JSON.stringify(value));
  const LOOK_MS = 2500;  // between two looks inside while an answer is written
  let models = [], talk = new holo.Conversation(saved("talk")), running = null, editing = null;
  const inside = holo.inside(id("inside"));
  // Where the tab's storage is full, the texts are kept without their probabilities.
  const keep = () => {
    if (save("talk", talk)) return;
    for (const node of Object.values(talk.nodes)) node.pieces = [];
    save("talk", talk);
  };

  const model = () => models.find(each => each.id === id("model").value);
  const settings = () => {
    const temperature = id("temperature").valueAsNumber, top_p = id("top-p").valueAsNumber;
    const max_tokens = id("max-tokens").valueAsNumber;
    return {
      ...(Number.isFinite(temperature) ? { temperature } : {}), ...(top_p > 0 ? { top_p } : {}),
      ...(max_tokens > 0 ? { max_tokens } : {}), ...(temperature === 0 ? { span_penalty: 0.8 } : {}),
    };
  };

  const about = () => {
    const known = model();
    id("about").textContent = known?.holo.only_continues ? holo.say("This is a base model: it continues your text.") : "";
  };

  // -- messages --

  const button = (text, act, label) => {
    const made = holo.element("button", { type: "button", textContent: text });
    if (label) made.setAttribute("aria-label", label);
    made.addEventListener("click", act);
    return made;
  };

  const branches = node => {
    const all = talk.siblings(node), place = all.indexOf(node.id);
    if (all.length < 2) return [];
    const turn = by => () => {
      talk.turn(node, by);
      keep();
      render();
      id("messages").querySelectorAll("li")[talk.path().findIndex(each => each.parent === node.parent)]?.querySelector(".branches button:not(:disabled)")?.focus();
      look();
    };
    const back = button("‹", turn(-1), holo.say("Previous version")), on = button("›", turn(1), holo.say("Next version"));
    back.disabled = running || place === 0;
    on.disabled = running || place === all.length - 1;
    return [holo.element("span", { className: "branches" }, back, holo.element("span", { textContent: `${place + 1}/${all.length}` }), on)];
  };

  const editor = node => {
    const text = holo.element("textarea", { value: node.text, rows: Math.min(8, node.text.split("\n").length + 1) });
    text.setAttribute("aria-label", holo.say("Edit the message"));
    const done = () => { editing = null; render(); };
    const send = () => {
      if (!text.value.trim() || running) return;
      editing = null;
      answer(talk.add(node.parent, "user", text.value));
    };
    onEnter(text, send);
    text.addEventListener("keydown", event => { if (event.key === "Escape" && !composing(event)) { event.stopPropagation(); done(); } });
    return [text, holo.element("p", { className: "tools" }, button(holo.say("Send as a new branch"), send), button(holo.say("Cancel"), done))];
  };

  const item = node => {
    const mine = node.role === "user";
    const who = holo.element("strong", { textContent: mine ? holo.say("You") : node.model || holo.say("Model") });
    const made = holo.element("li", { className: node.role }, holo.element("p", { className: "who" }, who, ...branches(node)));
    if (editing === node.id) {
      made.append(...editor(node));
      return made;
    }
    if (mine) {
      made.append(holo.element("div", { className: "said", textContent: node.text }));
      made.append(holo.element("p", { className: "tools" }, button(holo.say("Edit"), () => { if (!running) { editing = node.id; render(); id("messages").querySelector("textarea")?.focus(); } })));
      return made;
    }
    const body = holo.tokenText(node.pieces.length || !node.text ? node.pieces : [{ text: node.text, tokens: [] }]);
    const facts = holo.element("span", { className: "speed", textContent: node.note });
    made.append(body.element, holo.element("p", { className: "tools" }, facts, button(holo.say("Answer again"), () => { if (!running) answer(talk.nodes[node.parent]); })));
    made.live = { add: body.add, facts };
    return made;
  };

  const render = () => {
    id("messages").replaceChildren(...talk.path().map(item));
    id("messages").classList.toggle("doubt", id("doubt").checked);
    id("send").hidden = Boolean(running);
    id("stop").hidden = !running;
    id("new").disabled = id("model").disabled = Boolean(running);
  };

  // Scrolls along only where the reader is at the end already.
  const atEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 120;
  const toEnd = () => scrollTo({ top: document.documentElement.scrollHeight });

  // -- answers --

  const answer = async asked => {
    holo.problem(id("problem"), null);
    const node = talk.add(asked.id, "assistant", "");
    const writing = new holo.Writing(), control = new AbortController();
    let looked = performance.now();
    node.model = model()?.id || "";
    running = control;
    const atSend = document.activeElement === id("send");
    render();
    if (atSend) id("stop").focus();
    toEnd();
    const shown = id("messages").lastElementChild;
    shown.setAttribute("aria-busy", "true");
    try {
      const body = {
        ...settings(), model: node.model, messages: talk.messages(asked, id("system").value.trim()),
        logprobs: true, top_logprobs: 5, truncation: "auto",
      };
      for await (const { choices } of holo.stream("/v1/chat/completions", body, control.signal)) {
        if (!choices.length) continue;
        const follow = atEnd();
        const piece = writing.add(holo.textOf(choices[0]), holo.tokensOf(choices[0]), choices[0].finish_reason);
        if (piece) shown.live.add(piece);
        shown.live.facts.textContent = writing.speed();
        if (follow) toEnd();
        node.text = writing.text;
        if (isLooking() && node.text && performance.now() - looked > LOOK_MS) {
          looked = Infinity;  // one look at a time
          look().then(() => { looked = performance.now(); });
        }
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        if (!(error instanceof holo.Failure)) throw error;
        holo.problem(id("problem"), error);
        node.failed = true;
      }
    } finally {
      running = null;
      Object.assign(node, { text: writing.text, pieces: writing.pieces });
      const end = control.signal.aborted ? holo.say("stopped") : writing.finish === "length" ? holo.say("reached the most tokens") : "";
      node.note = [writing.speed(), end].filter(Boolean).join(" · ");
      if (node.failed && !node.text) {  // nothing to keep
        const siblings = talk.siblings(node);
        siblings.splice(siblings.indexOf(node.id), 1);
        talk.nodes[node.parent].chosen = siblings.at(-1) ?? null;
        delete talk.nodes[node.id];
      }
      keep();
      const atStop = document.activeElement === id("stop");
      render();
      // a focus that is lost with its button goes on; on a phone the text would call the keyboard
      if (atStop) id("send").focus();
      else if (document.activeElement === document.body && matchMedia("(hover: hover)").matches) id("text").focus({ preventScroll: true });
    }
    look();
  };

  const send = () => {
    const text = id("text").value;
    if (running || !text.trim() || !model()) return;
    id("text").value = "";
    save("draft", "");
    const path = talk.path(), last = path.at(-1);
    answer(talk.add(last ? last.id : 0, "user", text));
  };

  // -- inside --

  const isLooking = () => id("look").getAttribute("aria-pressed") === "true";
  const look = async () => {
    const open = isLooking();
    id("inside").hidden = !open;
    document.body.classList.toggle("looking", open);
    const last = talk.path().at(-1);
    if (!open) return;
    const body = last && { model: id("model").value, messages: talk.messages(last, id("system").value.trim()), language: holo.lang };
    await inside.show(body);
  };

  // -- keys --

  // An Enter that ends the composition of a syllable belongs to the input method. Some browsers
  // report it after the composition, with the key code 229.
  const composing = event => event.isComposing || event.keyCode === 229;
  const onEnter = (text, act) => text.addEventListener("keydown", event => {
    if (event.key !== "Enter" || event.shiftKey || composing(event)) return;
    event.preventDefault();
    act();
  });

  onEnter(id("text"), send);
  id("composer").addEventListener("submit", event => { event.preventDefault(); send(); });
  id("stop").addEventListener("click", () => { running?.abort(); id("text").focus(); });
  addEventListener("keydown", event => { if (event.key === "Escape" && running && !composing(event)) running.abort(); });
  id("text").addEventListener("input", () => save("draft", id("text").value));
  id("new").addEventListener("click", () => {
    talk = new holo.Conversation();
    editing = null;
    keep();
    holo.problem(id("problem"), null);
    render();
    look();
    id("text").focus();
  });
  id("look").addEventListener("click", () => {
    id("look").setAttribute("aria-pressed", String(!isLooking()));
    look();
  });
  id("doubt").addEventListener("change", render);
  id("model").addEventListener("change", () => { save("model", id("model").value); about(); look(); });

  const start = async () => {
    id("text").value = saved("draft") || "";
    render();
    try {
      models = await holo.models();
      holo.fillModels(id("model"), models, saved("model"));
      about();
      if (!models.length) id("about").textContent = holo.say("There is no checkpoint yet, only runs to watch. Start the server again when one is saved.");
    } catch (error) {
      if (!(error instanceof holo.Failure)) throw error;
      holo.problem(id("problem"), error);
    }
    toEnd();
    id("text").focus();
    document.body.dataset.ready = "yes";
  };
  start();
})();
