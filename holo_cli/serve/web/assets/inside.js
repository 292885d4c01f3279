// What a model does with a text: one row of tokens to choose from, and figures of the chosen one.
"use strict";

holo.inside = panel => {
  const LISTED = 8;  // values named below a figure
  let data = null, token = 0, variants = [], wanted = 0;

  const mix = (a, b, share) => a.map((v, i) => Math.round(v + (b[i] - v) * share));
  const rgb = name => {
    const hex = holo.colour(name).replace("#", "");
    return [0, 2, 4].map(i => parseInt(hex.slice(i, i + 2), 16));
  };

  // The numbers of a figure for the chosen token: [label, value], the largest first.
  const valuesAt = (figure, variant) => {
    const pairs = figure.kind === "map"
      ? (variant.rows[token] || []).map((value, i) => [`${data.tokens[i]} (${i})`, value, i])
      : variant.rows.map((row, i) => [`${figure.axis} ${variant.labels[i]}`.trim(), row[token], i]);
    return pairs.filter(pair => pair[1] !== null && pair[1] !== 0).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  };

  const largest = variant => Math.max(1e-9, ...variant.rows.flat().map(value => Math.abs(value || 0)));

  const paint = (canvas, figure, variant) => {
    const count = data.tokens.length, rows = variant.rows.length;
    const cell = Math.max(2, Math.floor(Math.min(panel.clientWidth - 40, 440) / count));
    const high = figure.kind === "map" ? cell : Math.max(3, Math.min(16, Math.floor(260 / rows)));
    canvas.width = cell * count;
    canvas.height = high * rows;
    const brush = canvas.getContext("2d");
    const none = rgb("low"), much = rgb("high"), middle = rgb("middle"), negative = rgb("tint1"), top = largest(variant);
    variant.rows.forEach((row, r) => row.forEach((value, c) => {
      if (value === null) return;
      const share = Math.sqrt(Math.abs(value) / top);
      const colour = value < 0 ? mix(none, negative, share) : share < 0.5 ? mix(none, middle, 2 * share) : mix(middle, much, 2 * share - 1);
      brush.fillStyle = `rgb(${colour.join(",")})`;
      brush.fillRect(c * cell, r * high, cell, high);
    }));
    brush.strokeStyle = holo.colour("tint1");
    brush.lineWidth = 2;
    if (figure.kind === "map") brush.strokeRect(1, token * high, cell * (token + 1) - 1, high);
    else brush.strokeRect(token * cell, 1, cell, high * rows - 2);
    canvas.onclick = event => {
      const share = figure.kind === "map" ? event.offsetY / canvas.clientHeight : event.offsetX / canvas.clientWidth;
      choose(Math.max(0, Math.min(count - 1, Math.floor(share * count))));
    };
  };

  const draw = () => {
    const strip = panel.querySelector(".tokens");
    const first = data.figures.findIndex(figure => figure.kind === "map");
    const row = first < 0 ? [] : data.figures[first].variants[variants[first]].rows[token] || [];
    const strongest = Math.max(1e-9, ...row.map(value => Math.abs(value || 0)));
    [...strip.children].forEach((each, i) => {
      const value = row[i] || 0, share = Math.round(45 * Math.sqrt(Math.abs(value) / strongest));
      each.setAttribute("aria-pressed", String(i === token));
      each.tabIndex = i === token ? 0 : -1;
      each.style.background = `color-mix(in srgb, var(--${value < 0 ? "tint1" : "accent"}) ${share}%, transparent)`;
    });
    data.figures.forEach((figure, f) => {
      const place = panel.querySelectorAll(".figure")[f], variant = figure.variants[variants[f]];
      paint(place.querySelector("canvas"), figure, variant);
      const values = valuesAt(figure, variant).slice(0, LISTED), top = largest(variant);
      place.querySelector("ol").replaceChildren(...values.map(([label, value]) => {
        const bar = holo.element("i", { className: value < 0 ? "negative" : "" });
        bar.style.width = `${100 * Math.abs(value) / top}%`;
        return holo.element("li", {}, holo.element("span", { className: "name", textContent: label }),
          holo.element("span", { className: "share" }, bar), holo.element("span", { className: "percent", textContent: holo.number(value) }));
      }));
      place.querySelector(".at").textContent = values.length
        ? holo.fill(holo.say("At “{0}” ({1}):"), data.tokens[token], token) : holo.fill(holo.say("Nothing at “{0}” ({1})."), data.tokens[token], token);
    });
  };

  const choose = i => { token = i; draw(); };

  const figure = (shown, f) => {
    const controls = holo.element("div", { className: "controls" });
    if (shown.variants.length > 1) {
      const select = holo.select(controls, holo.say("Show"), shown.variants.map(variant => variant.name), i => { variants[f] = i; draw(); });
      select.value = String(variants[f]);
    }
    const canvas = holo.element("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", shown.title);
    return holo.element("section", { className: "figure" }, holo.element("h3", { textContent: shown.title }), controls,
      holo.element("p", { className: "at" }), holo.element("ol", { className: "values" }), canvas,
      holo.element("details", {}, holo.element("summary", { textContent: holo.say("What this shows") }), holo.element("p", { className: "note", textContent: shown.note })));
  };

  const build = () => {
    const strip = holo.element("p", { className: "tokens" }, ...data.faces.map((face, i) => {
      const each = holo.element("button", { type: "button", textContent: face.replace(/\r/g, "").replace(/\n/g, "⏎") });
      each.addEventListener("click", () => choose(i));
      return each;
    }));
    strip.addEventListener("keydown", event => {
      const to = { ArrowRight: token + 1, ArrowLeft: token - 1, Home: 0, End: data.tokens.length - 1 }[event.key];
      if (to === undefined || to < 0 || to >= data.tokens.length) return;
      event.preventDefault();
      choose(to);
      strip.children[to].focus();
    });
    const cut = data.shown < data.whole
      ? holo.fill(holo.say("The last {0} of {1} tokens. Choose one:"), data.shown, data.whole) : holo.say("Choose a token:");
    panel.replaceChildren(holo.element("h2", { textContent: holo.fill(holo.say("Inside {0}"), data.model) }),
      holo.element("p", { className: "note", textContent: cut }), strip, ...data.figures.map(figure));
    draw();
  };

  const tell = text => panel.replaceChildren(holo.element("h2", { textContent: holo.say("Inside the model") }), holo.element("p", { className: "note", textContent: text }));

  // Asks for the view of a text, and draws it; the latest call wins.
  const show = async body => {
    const call = ++wanted;
    if (!body) return tell(holo.say("Write a message first."));
    panel.setAttribute("aria-busy", "true");
    try {
      const found = await holo.post("/api/inside", body);
      if (call !== wanted) return undefined;
      const same = data && data.model === found.model && data.figures.length === found.figures.length;
      data = found;
      token = data.tokens.length - 1;  // the newest
      // where several layers are shown the last one says most of what is written next
      variants = data.figures.map(({ variants: all }, f) => same ? Math.min(variants[f], all.length - 1) : all.length - 1);
      build();
    } catch (error) {
      if (!(error instanceof holo.Failure)) throw error;
      if (call === wanted) tell(error.message);
    } finally {
      panel.removeAttribute("aria-busy");
    }
    return undefined;
  };

  const redraw = () => { if (data && panel.clientWidth && panel.querySelector(".figure")) draw(); };
  holo.dark.addEventListener("change", redraw);
  new ResizeObserver(redraw).observe(panel);
  return { show };
};
