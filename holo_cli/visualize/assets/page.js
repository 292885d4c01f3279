// What every figure shares: colours from the style sheet, labels of tokens, controls, redrawing.
// A figure's own script puts a function(data, drawing, controls) into holo.kinds; it draws once and
// returns a function that draws again, called when the reader's theme or the figure's width changes.
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

holo.start = () => {
  const redraws = [...document.querySelectorAll("section[data-kind]")].map(section => {
    const data = JSON.parse(section.querySelector("script").textContent);
    const [drawing, controls] = [".drawing", ".controls"].map(name => section.querySelector(name));
    const draw = holo.kinds[section.dataset.kind](data, drawing, controls);
    let width = drawing.clientWidth;
    // a figure is laid out for its width: labels and legends move where there is little room
    new ResizeObserver(() => {
      if (drawing.clientWidth !== width && drawing.clientWidth) {
        width = drawing.clientWidth;
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
