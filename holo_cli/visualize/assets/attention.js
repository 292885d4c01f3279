// A map of weights for one layer and head, and the text itself: touching a token shades what it
// looks at, which also serves where a map is too small to read.
"use strict";
holo.kinds.attention = (data, drawing, controls) => {
  const { tokens, faces, layers, weights } = data;
  const heads = weights[0].length;
  const state = { layer: layers.length - 1, head: 0, token: tokens.length - 1 };
  const mean = rows => rows[0].map((row, t) => row.map((_, s) => rows.reduce((sum, r) => sum + r[t][s], 0) / rows.length));
  const chosen = () => state.head === 0 && heads > 1 ? mean(weights[state.layer]) : weights[state.layer][heads > 1 ? state.head - 1 : 0];
  const say = w => String(Math.round(1000 * w) / 1000);

  const plot = holo.plot(drawing, holo.say("Map of attention weights. The numbers are in the tables below."));
  const heading = holo.element("p", { className: "note" });
  heading.setAttribute("aria-live", "polite");
  const strip = holo.element("p", { className: "tokens" });
  drawing.append(heading, strip);
  const buttons = faces.map((face, i) => {
    const button = holo.element("button", { type: "button", textContent: face.replace(/\r/g, "").replace(/\n/g, "⏎\n") });
    button.addEventListener("click", () => { state.token = i; shade(); });
    return button;
  });
  strip.append(...buttons);

  const shade = () => {
    const row = chosen()[state.token];
    const best = row.map((w, i) => [w, i]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    const strongest = Math.max(best[0][0], 1e-9);
    const named = best.map(([w, i]) => `${tokens[i]} (${i}) ${say(w)}`).join(", ");
    heading.textContent = holo.say("Token {0}, “{1}”, looks most at: {2}. Touch another token to see what it looks at.")
      .replace("{0}", state.token).replace("{1}", () => tokens[state.token]).replace("{2}", () => named);
    buttons.forEach((button, i) => {
      const w = i < row.length ? row[i] : 0;
      button.setAttribute("aria-pressed", String(i === state.token));
      button.title = i < row.length ? say(w) : holo.say("comes later");
      button.style.background = `color-mix(in srgb, var(--accent) ${Math.round(75 * Math.sqrt(w / strongest))}%, transparent)`;
      button.style.opacity = i <= state.token ? "1" : "0.45";
    });
  };

  const draw = () => {
    const rows = chosen(), count = tokens.length;
    const narrow = plot.clientWidth < 600;
    const room = (narrow ? 250 : Math.min(plot.clientWidth, plot.clientHeight * 1.5) - 160) / 14;
    const every = Math.max(1, Math.ceil(count / room));
    const tickvals = tokens.map((_, i) => i).filter(i => i % every === 0);
    const ticktext = tickvals.map(i => holo.plain(tokens[i].slice(0, 12)));
    const axis = extra => holo.axis({
      tickmode: "array", tickvals, ticktext, tickfont: { size: narrow ? 9 : 11 }, showgrid: false,
      zeroline: false, ticks: "", ...extra,
    });
    const marks = [0, 0.05, 0.25, 0.5, 1];
    const trace = {
      type: "heatmap", zmin: 0, zmax: 1, xgap: count > 48 ? 0 : 1, ygap: count > 48 ? 0 : 1, hoverongaps: false,
      z: rows.map(row => tokens.map((_, s) => s < row.length ? Math.sqrt(row[s]) : null)),
      hoverinfo: "text",
      hovertext: rows.map((row, t) => tokens.map((_, s) => s < row.length
        ? `${holo.around(data, t)} (${t})<br>${holo.say("looks at")}<br>${holo.around(data, s)} (${s})<br>${holo.say("weight")} ${say(row[s])}` : "")),
      colorscale: [[0, holo.colour("low")], [0.5, holo.colour("middle")], [1, holo.colour("high")]],
      colorbar: {
        title: { text: holo.say("weight") }, thickness: 12, len: narrow ? 0.9 : 0.7, tickvals: marks.map(Math.sqrt), ticktext: marks.map(String), outlinewidth: 0,
        ...(narrow ? { orientation: "h", y: -0.02, yanchor: "top", title: { text: holo.say("weight"), side: "bottom" } } : {}),
      },
    };
    const layout = holo.layout({
      xaxis: axis({ side: "top", tickangle: -60, constrain: "domain", title: narrow ? undefined : { text: holo.say("looked at") } }),
      yaxis: axis({ autorange: "reversed", scaleanchor: "x", constrain: "domain", title: narrow ? undefined : { text: holo.say("looking") } }),
      margin: narrow ? { l: 55, r: 5, t: 60, b: 40 } : { l: 100, r: 10, t: 100, b: 10 },
    });
    Plotly.react(plot, [trace], layout, holo.config("zoom2d", "pan2d", "resetScale2d"));
    shade();
  };

  const layer = holo.select(controls, holo.say("Layer"), layers, i => { state.layer = i; draw(); });
  layer.value = String(state.layer);
  const names = weights[0].map((_, h) => String(h + 1));
  holo.select(controls, holo.say("Head"), heads > 1 ? [holo.say("mean of all"), ...names] : names, i => { state.head = i; draw(); });
  draw();
  plot.on("plotly_click", event => { state.token = event.points[0].y; shade(); });
  return draw;
};
