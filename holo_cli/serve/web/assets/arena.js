// One prompt, two checkpoints side by side.
"use strict";
(() => {
  const id = holo.id;
  const COLUMNS = 2;
  let running = null;

  const side = place => {
    const select = holo.element("select"), said = holo.element("div"), facts = holo.element("dl", { className: "facts" });
    const problem = holo.element("p", { className: "problem" });
    problem.setAttribute("role", "alert");
    select.setAttribute("aria-label", holo.fill(holo.say("Model {0}"), place + 1));
    said.className = "said";
    const element = holo.element("section", {}, select, said, problem, facts);
    return { element, select, problem, facts, said };
  };
  const sides = Array.from({ length: COLUMNS }, (_, place) => side(place));
  id("pair").append(...sides.map(each => each.element));

  const fact = (name, value) => holo.element("div", {}, holo.element("dt", { textContent: name }), holo.element("dd", { textContent: value }));
  const tell = (each, writing) => each.facts.replaceChildren(
    fact(holo.say("Speed"), writing.speed()),
    fact(holo.say("Mean log-probability"), holo.fill(holo.say("{0} per token"), holo.number(writing.meanLogprob))),
    fact(holo.say("Bits per byte"), holo.number(writing.bitsPerByte)));

  const write = async (each, request, signal) => {
    const writing = new holo.Writing(), text = holo.tokenText([]);
    each.said.replaceWith(text.element);
    each.said = text.element;
    each.facts.replaceChildren();
    holo.problem(each.problem, null);
    try {
      for await (const { choices } of holo.stream(request.path, { ...request.body, model: each.select.value }, signal)) {
        if (!choices.length) continue;
        const piece = writing.add(holo.textOf(choices[0]), holo.tokensOf(choices[0]), choices[0].finish_reason);
        if (piece) text.add(piece);
        tell(each, writing);
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof holo.Failure)) throw error;
      holo.problem(each.problem, error);
    }
  };

  const start = async () => {
    const prompt = id("prompt").value, chat = id("kind").value.startsWith("chat");
    if (running || !prompt.trim() || !sides[0].select.value) return;
    const number = name => id(name).valueAsNumber;
    const body = {
      ...(chat ? { messages: [{ role: "user", content: prompt }], logprobs: true, top_logprobs: 5 } : { prompt, logprobs: 5 }),
      ...(number("temperature") >= 0 ? { temperature: number("temperature") } : {}),
      ...(number("temperature") === 0 ? { span_penalty: 0.8 } : {}),
      ...(number("seed") >= 0 ? { seed: number("seed") } : {}), max_tokens: number("max-tokens") || 120,
    };
    running = new AbortController();
    id("go").hidden = true;
    id("stop").hidden = false;
    await Promise.all(sides.map(each => write(each, { path: `/v1/${id("kind").value}`, body }, running.signal)));
    running = null;
    id("go").hidden = false;
    id("stop").hidden = true;
  };

  id("ask").addEventListener("submit", event => { event.preventDefault(); start(); });
  id("prompt").addEventListener("keydown", event => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    start();
  });
  id("stop").addEventListener("click", () => running?.abort());
  addEventListener("keydown", event => { if (event.key === "Escape" && !event.isComposing) running?.abort(); });

  const load = async () => {
    try {
      const models = await holo.models();
      sides.forEach((each, place) => holo.fillModels(each.select, models, models[place % models.length]?.id));
      if (!models.some(model => model.holo.only_continues)) id("kind").value = "chat/completions";
      if (models.length < COLUMNS && models.length) id("problem").textContent = holo.say("The server has one model. Start it with two: holo serve -c A -c B");
    } catch (error) {
      if (!(error instanceof holo.Failure)) throw error;
      holo.problem(id("problem"), error);
    }
    id("prompt").focus();
    document.body.dataset.ready = "yes";
  };
  load();
})();
