// Curves of runs as SVG. Not Plotly: this page is drawn again every two seconds, and is opened on
// phones, where four megabytes of script are a long wait.
"use strict";

// Round numbers that divide a range, five or so.
holo.ticks = (low, high) => {
  const raw = (high - low) / 5, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(each => each * power).find(each => each >= raw * 0.999);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
};

holo.shape = (tag, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
};

// A section with a figure; the function it returns draws curves: [{name, tint, thin, x, y}].
// Thin ones are training batches, marked ones evaluations.
holo.chart = (place, title) => {
  const HEIGHT = 260, LEFT = 56, BOTTOM = 40, TOP = 8, RIGHT = 12, MARKED = 60;
  const legend = holo.element("p", { className: "legend" }), at = holo.element("p", { className: "note at" });
  const drawing = holo.element("div", { className: "chart" });
  const section = holo.element("section", { hidden: true }, holo.element("h2", { textContent: title }), drawing, legend, at);
  place.append(section);
  let curves = [], unit = "", scale = null;
  const brief = value => Math.abs(value) >= 1e4 ? Intl.NumberFormat(holo.lang, { notation: "compact" }).format(value) : holo.number(value, 4);

  const draw = () => {
    section.hidden = !curves.length;
    const width = drawing.clientWidth;
    if (section.hidden || !width) return;
    const all = key => curves.flatMap(curve => curve[key]);
    const range = (values, low) => {
      const least = values.reduce((a, b) => Math.min(a, b), low), most = values.reduce((a, b) => Math.max(a, b), -Infinity);
      return most > least ? [least, most] : [least - 0.5, most + 0.5];
    };
    const [x0, x1] = range(all("x"), Infinity), [y0, y1] = range(all("y"), Infinity);
    const sx = x => LEFT + (x - x0) / (x1 - x0) * (width - LEFT - RIGHT), sy = y => HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - BOTTOM - TOP);
    scale = { x0, x1, width };
    const svg = holo.shape("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `${title}. ${curves.map(({ name, y }) => `${name}: ${brief(y.at(-1))}`).join(", ")}` });
    for (const y of holo.ticks(y0, y1)) svg.append(holo.shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: sy(y), y2: sy(y) }), holo.shape("text", { x: LEFT - 6, y: sy(y) + 4, "text-anchor": "end" }, brief(y)));
    const marks = holo.ticks(x0, x1), every = Math.ceil(marks.length * 60 / (width - LEFT));
    marks.filter((_, i) => i % every === 0).forEach(x => svg.append(holo.shape("text", { x: sx(x), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, brief(x))));
    svg.append(holo.shape("text", { x: (LEFT + width) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, unit));
    for (const { x, y, tint, thin } of curves) {
      const points = x.map((each, i) => `${sx(each).toFixed(1)},${sy(y[i]).toFixed(1)}`);
      const style = { stroke: `var(--tint${tint % 6})`, class: thin ? "thin" : "thick", "stroke-dasharray": ["none", "6 3", "2 3"][Math.floor(tint / 2) % 3] };
      svg.append(holo.shape("polyline", { points: points.join(" "), ...style }));
      if (!thin && points.length <= MARKED) x.forEach((each, i) => svg.append(holo.shape("circle", { cx: sx(each), cy: sy(y[i]), r: 3, fill: style.stroke })));
    }
    const line = holo.shape("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, x1: -9, x2: -9 });
    svg.append(line);
    drawing.replaceChildren(svg);
    legend.replaceChildren(...curves.map(({ name, tint, thin }) => {
      const key = holo.element("i", { className: thin ? "thin" : "thick" });
      key.style.background = `var(--tint${tint % 6})`;
      return holo.element("span", {}, key, name);
    }));
  };

  // The values at a place, below the figure: by the mouse or a finger.
  drawing.addEventListener("pointermove", event => {
    if (!scale) return;
    const share = (event.clientX - drawing.getBoundingClientRect().left - LEFT) / (scale.width - LEFT - RIGHT);
    const x = scale.x0 + Math.max(0, Math.min(1, share)) * (scale.x1 - scale.x0);
    const said = curves.map(({ name, x: xs, y }) => {
      const near = xs.reduce((best, each, i) => Math.abs(each - x) < Math.abs(xs[best] - x) ? i : best, 0);
      return `${name} ${brief(y[near])}`;
    });
    at.textContent = `${unit} ${brief(x)}: ${said.join(" · ")}`;
    const line = drawing.querySelector(".cursor"), place = LEFT + (x - scale.x0) / (scale.x1 - scale.x0) * (scale.width - LEFT - RIGHT);
    line.setAttribute("x1", place);
    line.setAttribute("x2", place);
  });

  let width = 0;
  new ResizeObserver(() => {
    if (drawing.clientWidth === width) return;
    width = drawing.clientWidth;
    draw();
  }).observe(drawing);
  return (given, against) => { curves = given; unit = against; draw(); };
};
