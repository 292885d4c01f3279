// What every figure shares: colours from the style sheet, labels of tokens, controls, redrawing.
// A figure's own script puts a function(data, drawing, controls) into holo.kinds; it draws once and
// returns a function that draws again, called when the reader's theme or the figure's size changes.
"use strict";
const holo = { kinds: {}, words: {} };

// A word of the page in the reader's language; `words` comes with the page.
holo.say = text => holo.words[text] || text;

holo.dark = matchMedia("(prefers-color-scheme: dark)");
holo.still = matchMedia("(prefers-reduced-motion: reduce)");
holo.colour = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
holo.tint = i => holo.colour("tint" + i % 6);

// Plotly reads some markup in its strings; text of a person or a model has none.
holo.plain = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

holo.unplain = text => text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");

// A token with what stands around it, since a piece of a word says little.
holo.around = (data, at) => {
  const [before, after] = data.contexts[at].map(holo.plain);
  return `${before}<b>${holo.plain(data.tokens[at])}</b>${after}`;
};

holo.element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

holo.table = (columns, rows) => holo.element("table", {},
  holo.element("thead", {}, holo.element("tr", {}, ...columns.map(name => holo.element("th", { scope: "col", textContent: name })))),
  holo.element("tbody", {}, ...rows.map(row => holo.element("tr", {}, ...row.map(cell => holo.element("td", { textContent: String(cell) }))))));

holo.select = (controls, label, options, changed) => {
  const select = holo.element("select", {}, ...options.map((name, i) => new Option(name, String(i))));
  select.addEventListener("change", () => changed(Number(select.value)));
  controls.append(holo.element("label", {}, label, select));
  return select;
};

holo.checkbox = (controls, label, checked, changed) => {
  const box = holo.element("input", { type: "checkbox", checked });
  box.addEventListener("change", () => changed(box.checked));
  controls.append(holo.element("label", {}, box, label));
  return box;
};

holo.axis = extra => ({
  color: holo.colour("quiet"), gridcolor: holo.colour("grid"), zerolinecolor: holo.colour("grid"),
  linecolor: holo.colour("line"), ...extra,
});

holo.layout = extra => ({
  paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
  font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: holo.colour("text") },
  hoverlabel: {
    bgcolor: holo.colour("card"), bordercolor: holo.colour("accent"), align: "left",
    font: { family: getComputedStyle(document.body).fontFamily, size: 14, color: holo.colour("text") },
  },
  modebar: { bgcolor: "rgba(0,0,0,0)", color: holo.colour("quiet"), activecolor: holo.colour("accent") },
  margin: { l: 55, r: 10, t: 10, b: 50 },
  ...extra,
});

// Only buttons that stay on this machine: Plotly's own bar has one that sends the figure away.
holo.config = (...buttons) => ({ displaylogo: false, modeBarButtons: [["toImage", ...buttons]] });

holo.plot = (drawing, label, className = "plot") => {
  const plot = holo.element("div", { className });
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", label);
  drawing.append(plot);
  return plot;
};

// As many places as there is room for, and their names. Where some are left out a character of several
// tokens, "배 1/3", is named once, at its first.
holo.ticks = (names, room, height) => {
  const every = Math.max(1, Math.ceil(names.length * height / room));
  const all = names.map((_, i) => i);
  if (every === 1) return [all, names];
  const first = all.filter(i => !/ ([2-9]|\d\d)\/\d+$/.test(names[i]));
  const kept = [];
  for (const i of first) if (!kept.length || i - kept[kept.length - 1] >= every) kept.push(i);
  return [kept, kept.map(i => names[i].replace(/ 1\/\d+$/, ""))];
};

// Every map of tokens by tokens: a square, its first row on top, as many names as there is room for.
// `titles` are those of the two axes.
holo.map = (plot, columns, rows, titles) => {
  const narrow = plot.clientWidth < 600;
  const wide = narrow ? plot.clientWidth - 70 : plot.clientWidth - 200, high = plot.clientHeight - (narrow ? 110 : 120);
  const named = (names, room) => {
    const short = name => name.length > 12 ? name.slice(0, 11) + "…" : name;
    const [tickvals, ticktext] = holo.ticks(names, room, 14);
    return { tickmode: "array", tickvals, ticktext: ticktext.map(name => holo.plain(short(name))) };
  };
  const side = Math.min(wide, high);
  const axis = (names, title, extra) => holo.axis({
    ...named(names, side), tickfont: { size: narrow ? 10 : 11 }, showgrid: false, zeroline: false, ticks: "",
    constrain: "domain", title: narrow ? undefined : { text: title }, ...extra,
  });
  return holo.layout({
    xaxis: axis(columns, titles[0], { side: "top", tickangle: -60 }),
    yaxis: axis(rows, titles[1], { autorange: "reversed", scaleanchor: "x" }),
    margin: narrow ? { l: 55, r: 5, t: 60, b: 45 } : { l: 100, r: 10, t: 100, b: 10 },
  });
};

holo.bar = (narrow, title, extra) => ({
  thickness: 12, outlinewidth: 0, tickfont: { size: 11 }, len: narrow ? 0.9 : 0.8, title: { text: title }, ...extra,
  ...(narrow ? { orientation: "h", y: -0.02, yanchor: "top", title: { text: title, side: "bottom" } } : {}),
});

// Weights from 0 to 1, drawn by their square root so that small ones show.
holo.weights = (rows, narrow, title) => {
  const marks = [0, 0.05, 0.25, 0.5, 1];
  return {
    type: "heatmap", zmin: 0, zmax: 1, hoverongaps: false, ...holo.gaps(rows),
    z: rows.map(row => row.map(w => w === null ? null : Math.sqrt(Math.max(0, w)))),
    colorscale: holo.scales.amount(),
    colorbar: holo.bar(narrow, title, { tickvals: marks.map(Math.sqrt), ticktext: marks.map(String) }),
  };
};

holo.gaps = rows => rows.length > 48 ? { xgap: 0, ygap: 0 } : { xgap: 1, ygap: 1 };

// From the ground of the figure: what is nothing is not seen.
holo.scales = {
  amount: () => [[0, holo.colour("low")], [0.5, holo.colour("middle")], [1, holo.colour("high")]],
  signed: () => [[0, holo.colour("tint0")], [0.5, holo.colour("low")], [1, holo.colour("tint1")]],
};

// Names beside points: of those that would lie on each other the first one is shown. A point that is
// pointed at tells its name, and zooming in makes room.
holo.unclutter = plot => {
  const clear = () => {
    const kept = [];
    for (const name of plot.querySelectorAll(".textpoint text")) {
      const a = name.getBoundingClientRect();
      const free = kept.every(b => a.right < b.left || b.right < a.left || a.bottom < b.top + 3 || b.bottom < a.top + 3);
      name.style.visibility = free ? "" : "hidden";
      if (free) kept.push(a);
    }
  };
  plot.on("plotly_afterplot", clear);
  clear();
};

// The legend of a figure beside it and not on it: a button for each entry, which hides its curves.
holo.DASHES = { solid: "", dash: "7 4", dot: "2 3", dashdot: "7 3 2 3" };
holo.SHAPES = {
  circle: "M21 7a4 4 0 1 1 -8 0a4 4 0 1 1 8 0z", square: "M13 3h8v8h-8z", diamond: "M17 2l5 5l-5 5l-5 -5z",
  cross: "M15.5 2.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z", x: "M13 4l2 -2l2.5 2.5l2.5 -2.5l2 2l-2.5 2.5l2.5 2.5l-2 2l-2.5 -2.5l-2.5 2.5l-2 -2l2.5 -2.5z",
  "triangle-up": "M17 2l5 9h-10z",
};

holo.swatch = trace => {
  const make = (tag, given) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(given).forEach(([name, value]) => made.setAttribute(name, value));
    return made;
  };
  const color = (trace.marker || trace.line || {}).color || holo.colour("text"), mode = trace.mode || "lines+markers";
  const svg = make("svg", { width: 34, height: 14, "aria-hidden": "true" });
  if (trace.type === "bar") svg.append(make("rect", { x: 11, y: 1, width: 12, height: 12, fill: color }));
  else {
    const dash = holo.DASHES[(trace.line || {}).dash] || "";
    if (mode.includes("lines")) svg.append(make("path", { d: "M0 7h34", stroke: color, "stroke-width": 2.5, "stroke-dasharray": dash }));
    const symbol = (trace.marker || {}).symbol || "circle", open = symbol.endsWith("-open");
    if (mode.includes("markers")) svg.append(make("path", { d: holo.SHAPES[symbol.replace("-open", "")] || holo.SHAPES.circle, fill: open ? "none" : color, stroke: color }));
  }
  return svg;
};

holo.legend = (drawing, changed) => {
  const box = holo.element("div", { className: "legend" }), hidden = new Set();
  drawing.append(box);
  const entry = trace => trace.entry || trace.name;
  return {
    hides: trace => hidden.has(entry(trace)),
    show: traces => {
      const shown = new Map();
      // of several curves of one entry, the one with markers stands for it
      for (const trace of traces) {
        if (!trace.name || trace.showlegend === false) continue;
        const before = shown.get(entry(trace));
        if (!before || !(before.mode || "markers").includes("markers")) shown.set(entry(trace), trace);
      }
      box.replaceChildren(...(shown.size < 2 && !hidden.size ? [] : [...shown].map(([name, trace]) => {
        const button = holo.element("button", { type: "button" }, holo.swatch(trace), name);
        button.setAttribute("aria-pressed", String(!hidden.has(name)));
        button.addEventListener("click", () => {
          if (!hidden.delete(name)) hidden.add(name);
          changed();
          [...box.children].find(child => child.textContent === name).focus();
        });
        return button;
      })));
    },
  };
};

// The first figure gets the height that the title, the sentence and the selectors above it and the
// legend under it leave of the screen.
holo.fit = () => {
  const drawing = document.querySelector(".story main > section:first-child .drawing");
  if (!drawing || !drawing.querySelector(".plot")) return;
  const legend = drawing.querySelector(".legend");
  const taken = drawing.getBoundingClientRect().top + scrollY + (legend ? legend.offsetHeight : 0);
  document.documentElement.style.setProperty("--taken", `${Math.ceil(taken)}px`);
};

holo.start = () => {
  const redraws = [...document.querySelectorAll("section[data-kind]")].map(section => {
    const data = JSON.parse(section.querySelector("script").textContent);
    const [drawing, controls] = [".drawing", ".controls"].map(name => section.querySelector(name));
    const draw = holo.kinds[section.dataset.kind](data, drawing, controls);
    // a figure is laid out for its size: labels and legends move where there is little room
    const sized = () => `${drawing.clientWidth} ${drawing.querySelector(".plot")?.clientHeight}`;
    let size = sized();
    new ResizeObserver(() => {
      holo.fit();
      if (sized() !== size && drawing.clientWidth) {
        size = sized();
        draw();
      }
    }).observe(drawing);
    return draw;
  });
  const redraw = () => redraws.forEach(draw => draw());
  holo.dark.addEventListener("change", redraw);
  // Paper has a width of its own and is white: figures are drawn once more for it, and back.
  const printed = paper => () => {
    document.documentElement.classList.toggle("paper", paper);
    redraw();
  };
  addEventListener("beforeprint", printed(true));
  addEventListener("afterprint", printed(false));
};
