// A map of weights for one layer and head, and the text itself: touching a token shades what it
// looks at, which also serves where a map is too small to read.
"use strict";
holo.kinds.attention = (data, drawing, controls) => {
  const { tokens, faces, layers, weights } = data;
  const heads = weights[0].length;
  const [opened, head, opener] = data.opens;
  const state = { layer: opened, head: heads > 1 ? head + 1 : 0, token: opener };
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
  // a character of several tokens stays whole: its parts are buttons side by side in one frame
  let frame;
  buttons.forEach((button, i) => {
    const first = data.parts[i] === 0;
    if (first) frame = strip;
    if (first && data.parts[i + 1] === 1) strip.append(frame = holo.element("span", { className: "whole" }));
    if (!first) button.className = "part";
    frame.append(button);
  });

  const shade = () => {
    const row = chosen()[state.token];
    const best = row.map((w, i) => [w, i]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    const strongest = Math.max(best[0][0], 1e-9);
    const named = best.map(([w, i]) => `${tokens[i]} (${i}) ${say(w)}`).join(", ");
    heading.textContent = holo.say("Token {0}, “{1}”, takes most from: {2}. Touch another token to see what it takes from.")
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
    const narrow = plot.clientWidth < 600;
    const rows = chosen().map(row => tokens.map((_, s) => s < row.length ? row[s] : null));
    const trace = {
      ...holo.weights(rows, narrow, holo.say("weight")), hoverinfo: "text",
      hovertext: rows.map((row, t) => row.map((w, s) => w === null ? ""
        : `${holo.around(data, t)} (${t})<br>${holo.say("takes from")}<br>${holo.around(data, s)} (${s})<br>${holo.say("weight")} ${say(w)}`)),
    };
    const layout = holo.map(plot, tokens, tokens, [holo.say("earlier token"), holo.say("token")]);
    Plotly.react(plot, [trace], layout, holo.config("zoom2d", "pan2d", "resetScale2d"));
    shade();
  };

  const layer = holo.select(controls, holo.say("Layer"), layers, i => { state.layer = i; draw(); });
  layer.value = String(state.layer);
  const names = weights[0].map((_, h) => String(h + 1));
  holo.select(controls, holo.say("Head"), heads > 1 ? [holo.say("mean of all"), ...names] : names, i => { state.head = i; draw(); }).value = String(state.head);
  draw();
  plot.on("plotly_click", event => { state.token = event.points[0].y; shade(); });
  return draw;
};
