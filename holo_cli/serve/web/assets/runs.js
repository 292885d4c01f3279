// The runs page: a list, curves that move while training goes on, samples, settings that differ.
"use strict";
(() => {
  const id = holo.id;
  const LIST_MS = 5000, LOG_MS = 2000, MOST = 6, MOST_POINTS = 4000;
  const KEYS = { step: "step", tokens: "tokens", seconds: "seconds" };
  const MEASURES = [
    [holo.say("Loss, nats per token"), "loss", "val_loss"], [holo.say("Bits per byte"), null, "bpb"],
    [holo.say("Speed, tokens per second"), "tokens_per_second", null], [holo.say("Learning rate"), "lr", null],
  ];
  let runs = [], chosen = JSON.parse(holo.stored("sessionStorage", "holo.runs") || "null"), compared = "";
  const logs = new Map();
  const charts = MEASURES.map(([title]) => holo.chart(id("figures"), title));

  const states = {
    running: holo.say("running"), unfinished: holo.say("unfinished"), complete: holo.say("complete"),
    "weights only": holo.say("weights only"), "log only": holo.say("log only"), damaged: holo.say("damaged"),
  };
  const size = bytes => bytes >= 1e9 ? `${holo.number(bytes / 1e9)} GB` : bytes >= 1e6 ? `${holo.number(bytes / 1e6)} MB` : `${holo.number(bytes / 1e3)} kB`;

  const row = run => {
    const box = holo.element("input", { type: "checkbox", checked: chosen.includes(run.run), id: `run-${run.run}` });
    box.disabled = !box.checked && chosen.length >= MOST;
    box.addEventListener("change", () => choose(run.run, box.checked));
    const cells = [run.model, run.data, run.step === null ? "" : `${holo.count(run.step)}${run.steps ? ` / ${holo.count(run.steps)}` : ""}`,
      run.best_val === null ? "" : run.best_val.toFixed(4), new Date(run.updated).toLocaleString(holo.lang, { dateStyle: "short", timeStyle: "short" }), size(run.bytes)];
    return holo.element("tr", {}, holo.element("td", { className: "name" }, holo.element("label", {}, box, ` ${run.run}`)),
      holo.element("td", { className: `state ${run.state}`, textContent: states[run.state] || run.state }), ...cells.map(textContent => holo.element("td", { textContent })));
  };

  const list = () => {
    const focused = document.activeElement?.id;
    const heads = [holo.say("run"), holo.say("state"), holo.say("model"), holo.say("data"), holo.say("step"), holo.say("best loss"), holo.say("last written"), holo.say("size")];
    const head = holo.element("thead", {}, holo.element("tr", {}, ...heads.map(textContent => holo.element("th", { scope: "col", textContent }))));
    id("list").replaceChildren(head, holo.element("tbody", {}, ...runs.map(row)));
    if (focused?.startsWith("run-")) id(focused)?.focus();
    if (!runs.length) id("list").replaceChildren(holo.element("caption", { textContent: holo.say("There are no runs in this folder yet.") }));
  };

  const choose = (name, on) => {
    chosen = on ? [...chosen, name] : chosen.filter(each => each !== name);
    holo.stored("sessionStorage", "holo.runs", JSON.stringify(chosen));
    list();
    refresh();
  };

  // -- logs --

  const merge = (log, found) => {
    if (found.whole) Object.assign(log, { train: [], eval: [], start: null, done: null, damaged: 0 });
    log.train.push(...found.train);
    log.eval.push(...found.eval.map(each => ({ ...each, seconds: each.train_seconds })));
    if (log.train.length > MOST_POINTS) log.train = log.train.filter((_, i) => i % 2 || i > log.train.length - 10);
    if (found.start) Object.assign(log, { start: found.start, done: null });
    Object.assign(log, { done: found.done || log.done, log: found.log, next: found.next, damaged: log.damaged + found.damaged });
    return found.whole || found.train.length || found.eval.length || found.done;
  };

  const fetchLog = async name => {
    const log = logs.get(name) || { log: "", next: 0, train: [], eval: [], damaged: 0 };
    logs.set(name, log);
    try {
      return merge(log, await holo.get(`/api/runs/log?run=${encodeURIComponent(name)}&log=${log.log}&from=${log.next}`));
    } catch (error) {
      if (error.code === "run_not_found") return false;  // a run without a log has no curves
      throw error;
    }
  };

  const series = (name, tint, key, rows, thin) => {
    const against = KEYS[id("against").value];
    const known = rows.filter(each => each[key] !== null && each[key] !== undefined);
    return { name, tint, thin, x: known.map(each => each[against]), y: known.map(each => each[key]) };
  };

  const drawCurves = () => {
    const unit = id("against").selectedOptions[0].textContent;
    MEASURES.forEach(([, train, validation], m) => {
      const curves = chosen.flatMap((name, tint) => {
        const log = logs.get(name);
        if (!log) return [];
        return [
          ...(train ? [series(validation ? `${name}, ${holo.say("training")}` : name, tint, train, log.train, true)] : []),
          ...(validation ? [series(train ? `${name}, ${holo.say("validation")}` : name, tint, validation, log.eval, false)] : []),
        ];
      });
      charts[m](curves.filter(curve => curve.x.length), unit);
    });
  };

  const drawSamples = () => {
    const found = chosen.flatMap(name => (logs.get(name)?.eval || []).filter(each => each.sample).slice(-1).map(each => [name, each]));
    id("samples-part").hidden = !found.length;
    id("samples").replaceChildren(...found.flatMap(([name, each]) => [
      holo.element("h3", { textContent: holo.fill(holo.say("{0}, step {1}, loss {2}"), name, holo.count(each.step), holo.number(each.val_loss, 5)) }),
      holo.element("p", { className: "sample", textContent: each.sample })]));
  };

  const drawHardware = () => {
    const rows = chosen.filter(name => logs.get(name)?.start).map(name => {
      const { start, done, train, damaged } = logs.get(name);
      const speed = done?.tokens_per_second || train.at(-1)?.tokens_per_second;
      return [name, `${start.device || ""} ${start.dtype || ""}`, holo.count(start.parameters), holo.count(speed),
        start.memory_bytes ? size(start.memory_bytes) : "", done?.peak_rss_bytes ? size(done.peak_rss_bytes) : "", damaged ? holo.count(damaged) : ""];
    });
    const heads = [holo.say("run"), holo.say("device"), holo.say("parameters"), holo.say("tokens per second"), holo.say("memory, estimated"), holo.say("memory, highest"), holo.say("damaged lines")];
    id("hardware-part").hidden = !rows.length;
    id("hardware").replaceChildren(holo.table(heads, rows));
  };

  const drawSettings = async () => {
    const names = chosen.filter(name => runs.some(run => run.run === name));
    const wanted = JSON.stringify([names, runs.filter(run => names.includes(run.run)).map(run => run.updated)]);
    if (wanted === compared) return;
    compared = wanted;
    id("settings-part").hidden = names.length < 2;
    if (names.length < 2) return;
    const { differing } = await holo.get(`/api/runs/settings?${names.map(name => `run=${encodeURIComponent(name)}`).join("&")}`);
    const rows = Object.entries(differing).map(([key, values]) => [key, ...values.map(value => value === null ? "" : typeof value === "object" ? JSON.stringify(value) : value)]);
    const made = rows.length ? holo.table([holo.say("setting"), ...names], rows) : holo.element("p", { textContent: holo.say("Their settings are the same.") });
    id("differing").replaceChildren(made);
  };

  // -- again and again --

  const guarded = async act => {
    try {
      await act();
      holo.problem(id("problem"), null);
    } catch (error) {
      if (!(error instanceof holo.Failure)) throw error;
      holo.problem(id("problem"), error);
    }
  };

  const refresh = () => guarded(async () => {
    await Promise.all(chosen.map(fetchLog));
    drawCurves();
    drawSamples();
    drawHardware();
    await drawSettings();
  });

  const follow = () => guarded(async () => {
    const changed = await Promise.all(chosen.map(fetchLog));
    if (changed.some(Boolean)) {
      drawCurves();
      drawSamples();
      drawHardware();
    }
  });

  const relist = async () => {
    const before = JSON.stringify(runs);
    runs = (await holo.get("/api/runs")).runs;
    chosen ||= runs.slice(0, 1).map(run => run.run);
    chosen = chosen.filter(name => runs.some(run => run.run === name));
    if (JSON.stringify(runs) !== before || !runs.length) list();
  };

  // One request at a time, and none while nobody looks.
  const repeat = (act, ms) => setTimeout(async () => {
    if (!document.hidden) await act();
    repeat(act, ms);
  }, ms);

  id("against").addEventListener("change", drawCurves);
  const start = async () => {
    await guarded(relist);
    chosen ||= [];
    await refresh();
    document.body.dataset.ready = "yes";
    repeat(follow, LOG_MS);
    repeat(() => guarded(async () => { await relist(); await drawSettings(); }), LIST_MS);
  };
  start();
})();
