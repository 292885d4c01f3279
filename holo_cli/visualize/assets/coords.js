// Tokens as points in space. One frame per layer, the axes the same in all; between two layers the
// points glide, so that the eye can follow them. Without WebGL the first two axes are drawn flat.
"use strict";
holo.kinds.coords = (data, drawing, controls) => {
  const { tokens, languages, layers, mass, points } = data;
  const plot = holo.plot(drawing, holo.say("Tokens in three dimensions. The numbers are in the tables below."));
  const webgl = ["webgl2", "webgl"].some(kind => document.createElement("canvas").getContext(kind));
  const known = [...new Set(languages)];
  const words = { position: holo.say("position"), language: holo.say("language"), mass: holo.say("mass") };
  const colours = ["position", ...(known.length > 1 ? ["language"] : []), ...(mass ? ["mass"] : [])];
  const last = layers.length - 1;
  const state = {
    layer: data.opens, colour: colours.includes("language") ? "language" : colours[0], flat: !webgl,
    lines: false, labels: tokens.length <= 64 && plot.clientWidth >= 600, shown: points[data.opens],
    camera: null, // as the reader has turned the figure
  };
  const hover = tokens.map((_, i) => holo.around(data, i));
  const symbols = ["circle", "diamond", "square", "cross", "x"];
  const heaviest = mass && Math.max(...mass.flat());

  const sizes = chosen => {
    const [least, more] = plot.clientWidth < 600 ? [4, 10] : [5, 19];
    return chosen.map(i => mass ? least + more * Math.sqrt(mass[state.layer][i] / heaviest) : state.flat ? 10 : 7);
  };

  // half the largest extent over all layers, about the middle of each axis: equal scales, one cube
  const middle = [], extent = [];
  for (let axis = 0; axis < 3; axis++) {
    const all = points.flat().map(p => p[axis]);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    middle.push((low + high) / 2);
    extent.push(Math.max(high - low, 1e-9));
  }
  const largest = Math.max(...extent);
  const reach = extent.map(e => 0.57 * Math.max(e, 0.25 * largest));

  // letters drawn by WebGL know no entities, only tags
  const written = text => state.flat ? holo.plain(text) : text.replace(/</g, "‹").replace(/>/g, "›");

  const place = (trace, chosen) => {
    ["x", "y", "z"].slice(0, state.flat ? 2 : 3).forEach((name, axis) => {
      trace[name] = chosen.map(i => state.shown[i][axis]);
    });
    return { type: state.flat ? "scatter" : "scatter3d", ...trace };
  };

  const called = language => language === "special" ? holo.say("special") : data.called[language] || language || holo.say("unknown");

  // Where each token of the layer is in the scene's picture, and how near: [x, y, depth] in pixels.
  const projected = () => {
    const at = points[state.layer], height = plot.clientHeight - 30;
    const { eye, center } = state.camera || scene().camera, ratio = ratios();
    const [from, to] = [eye, center].map(p => [p.x, p.y, p.z]);
    const minus = (a, b) => a.map((v, k) => v - b[k]), dot = (a, b) => a.reduce((sum, v, k) => sum + v * b[k], 0);
    const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    const unit = a => a.map(v => v / Math.max(1e-9, Math.hypot(...a)));
    const ahead = unit(minus(to, from)), right = unit(cross(ahead, [0, 0, 1])), up = cross(right, ahead);
    const zoom = height / 2 / Math.tan(Math.PI / 8); // of Plotly's camera, whose view is 45 degrees high
    return at.map(p => {
      const seen = minus(p.map((v, k) => ratio[k] * (v - middle[k]) / (2 * reach[k])), from);
      const depth = Math.max(1e-3, dot(seen, ahead));
      return [zoom * dot(seen, right) / depth, -zoom * dot(seen, up) / depth, depth];
    });
  };

  // The tokens whose names are written: of names that would lie on each other the nearest one, and
  // none that lies on the marker of another token.
  const ruler = document.createElement("canvas").getContext("2d");
  const readable = () => {
    if (state.flat) return new Set(tokens.keys()); // there Plotly's own letters are measured
    if (!state.labels) return new Set();
    ruler.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const at = projected(), size = sizes([...tokens.keys()]), kept = [];
    const boxes = tokens.map((token, i) => ({
      i, x: at[i][0], y: at[i][1] - size[i] / 2 - 8, wide: ruler.measureText(token).width + 4,
    }));
    const marked = box => at.some(([x, y], i) => i !== box.i
      && Math.abs(box.x - x) < (box.wide + size[i]) / 2 - 2 && Math.abs(box.y - y) < 6 + size[i] / 2 - 2);
    for (const box of boxes.sort((a, b) => at[a.i][2] - at[b.i][2] || a.i - b.i)) {
      const free = kept.every(other => Math.abs(box.x - other.x) > (box.wide + other.wide) / 2 || Math.abs(box.y - other.y) > 15);
      if (free && !marked(box)) kept.push(box);
    }
    return new Set(kept.map(box => box.i));
  };

  const dots = (named, chosen, name, marker) => place({
    mode: state.labels ? "markers+text" : "markers", name: name || "tokens", showlegend: Boolean(name),
    text: chosen.map(i => named.has(i) ? written(tokens[i]) : ""), textposition: "top center",
    textfont: { size: 12, color: holo.colour("text") },
    hoverinfo: "text",
    hovertext: chosen.map(i => {
      const weight = mass ? `<br>${words.mass} ` + mass[state.layer][i] : "";
      const language = languages[i] ? "<br>" + holo.plain(called(languages[i])) : "";
      return hover[i] + `<br>${words.position} ` + i + language + weight;
    }),
    marker: { size: sizes(chosen), opacity: 0.95, line: { width: 1, color: holo.colour("card") }, ...marker },
  }, chosen);

  const traces = () => {
    const all = tokens.map((_, i) => i), named = readable();
    const path = place({
      mode: "lines", hoverinfo: "skip", showlegend: false, name: "order",
      line: { color: holo.colour("quiet"), width: state.flat ? 1 : 2 }, opacity: 0.35,
    }, all);
    const first = state.lines ? [path] : [];
    if (state.colour === "language") {
      return first.concat(known.map((language, k) => {
        const chosen = all.filter(i => languages[i] === language);
        return dots(named, chosen, called(language), { color: holo.tint(k), symbol: symbols[k % symbols.length] });
      }));
    }
    const narrow = plot.clientWidth < 600;
    const bar = narrow
      ? { orientation: "h", y: -0.02, yanchor: "top", len: 0.9, thickness: 10, title: { text: words[state.colour], side: "top" } }
      : { thickness: 12, len: 0.6, title: { text: words[state.colour] } };
    const values = state.colour === "mass" ? mass[state.layer] : all;
    const scale = holo.dark.matches ? "Viridis" : [[0, "#fba238"], [0.5, "#c43e7c"], [1, "#2d1160"]];
    const range = state.colour === "mass" ? { cmin: 0, cmax: heaviest } : {};
    return first.concat([dots(named, all, "", { color: values, colorscale: scale, showscale: true, colorbar: bar, ...range })]);
  };

  const axes = () => [0, 1, 2].map(i => holo.axis({
    title: { text: plot.clientWidth < 600 ? `${holo.say("axis")} ${i + 1}` : `${holo.say("axis")} ${i + 1} (${(100 * data.explained[i]).toFixed(1)} %)` },
    range: [middle[i] - reach[i], middle[i] + reach[i]],
    showspikes: false, backgroundcolor: "rgba(0,0,0,0)", showbackground: false, zeroline: false,
    tickfont: { size: 11 }, nticks: 5,
  }));

  const ratios = () => reach.map(r => 1.25 * r / Math.max(...reach));
  const scene = () => {
    const ratio = ratios();
    // a phone's figure is narrower than high, and a low one leaves little room for the names of the
    // axes: from farther away they are in it
    const away = (plot.clientWidth < 600 ? 0.9 : 0.6 * Math.max(1, 420 / plot.clientHeight)) * Math.hypot(...ratio);
    return {
      aspectmode: "manual", aspectratio: { x: ratio[0], y: ratio[1], z: ratio[2] }, dragmode: "turntable",
      camera: { eye: { x: 0.95 * away, y: -1.55 * away, z: 0.6 * away }, center: { x: 0, y: 0, z: -0.2 } },
    };
  };

  const layout = () => {
    const [x, y, z] = axes();
    const legend = { orientation: "h", x: 0, y: 1, yanchor: "bottom", itemsizing: "constant" };
    if (state.flat) {
      return holo.layout({ xaxis: x, yaxis: { ...y, scaleanchor: "x" }, legend, uirevision: "flat", margin: { l: 60, r: 10, t: 30, b: 50 } });
    }
    return holo.layout({ scene: { xaxis: x, yaxis: y, zaxis: z, ...scene() }, legend, uirevision: "space", margin: { l: 0, r: 0, t: 30, b: 0 } });
  };

  const draw = () => {
    const buttons = state.flat ? ["zoom2d", "pan2d", "resetScale2d"] : ["resetCameraDefault3d"];
    return Plotly.react(plot, traces(), layout(), holo.config(...buttons));
  };

  let gliding = 0;
  const go = layer => {
    const [from, to, begun, time] = [state.shown, points[layer], performance.now(), 450];
    state.layer = layer;
    slider.value = String(layer);
    name.textContent = layers[layer];
    slider.setAttribute("aria-valuetext", layers[layer]);
    cancelAnimationFrame(gliding);
    if (holo.still.matches || tokens.length > 256) {
      state.shown = to;
      return draw();
    }
    const frame = () => {
      const t = Math.min(1, (performance.now() - begun) / time), ease = t * t * (3 - 2 * t);
      state.shown = t === 1 ? to : from.map((p, i) => p.map((v, k) => v + ease * (to[i][k] - v)));
      draw();
      if (t < 1) gliding = requestAnimationFrame(frame);
    };
    gliding = requestAnimationFrame(frame);
  };

  const name = holo.element("output", { textContent: layers[data.opens] });
  const slider = holo.element("input", { type: "range", min: 0, max: last, step: 1, value: data.opens });
  slider.addEventListener("input", () => go(Number(slider.value)));
  controls.append(holo.element("label", {}, holo.say("Layer"), slider, name));
  const play = holo.element("button", { type: "button", textContent: holo.say("Play") });
  let playing = 0;
  const stop = () => { clearInterval(playing); playing = 0; play.textContent = holo.say("Play"); };
  play.addEventListener("click", () => {
    if (playing) return stop();
    play.textContent = holo.say("Stop");
    go(0);
    playing = setInterval(() => state.layer === last ? stop() : go(state.layer + 1), 1000);
  });
  controls.append(play);
  const colour = holo.select(controls, holo.say("Colour"), colours.map(name => words[name]), i => { state.colour = colours[i]; draw(); });
  colour.value = String(colours.indexOf(state.colour));
  holo.checkbox(controls, holo.say("labels"), state.labels, on => { state.labels = on; draw(); });
  holo.checkbox(controls, holo.say("lines in reading order"), state.lines, on => { state.lines = on; draw(); });
  if (webgl) {
    holo.checkbox(controls, holo.say("flat"), false, on => {
      Object.assign(state, { flat: on, camera: null });
      Plotly.purge(plot);
      draw();
      follow();
    });
  } else {
    controls.append(holo.element("span", { className: "message" }, holo.say("This browser has no WebGL: axes 1 and 2 are drawn flat.")));
  }
  // Plotly drops its listeners with a purged figure, so each kind of figure gets its own.
  const follow = () => {
    holo.unclutter(plot);
    plot.on("plotly_relayout", () => {
      if (state.flat) return;
      state.camera = plot.layout.scene.camera;
      if (state.labels) draw();
    });
  };
  draw();
  follow();
  return draw;
};
