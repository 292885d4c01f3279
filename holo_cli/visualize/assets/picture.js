// A figure given as Plotly traces, with a selector where there are several variants of it, and where
// the page asks for it the numbers of the variant that is drawn, as text.
"use strict";
holo.kinds.picture = (data, drawing, controls) => {
  const names = Object.keys(data.variants);
  const plot = holo.plot(drawing, "A figure. The numbers are in the tables below.", "plot low");
  let chosen = names[0];

  // From the ground of the figure: what is nothing is not seen.
  const scales = {
    amount: () => [[0, holo.colour("low")], [0.5, holo.colour("middle")], [1, holo.colour("high")]],
    signed: () => [[0, holo.colour("tint0")], [0.5, holo.colour("low")], [1, holo.colour("tint1")]],
  };

  const styled = ({ tint, scale, ...trace }, narrow) => {
    const made = { ...trace };
    for (const key of ["name", "text", "hovertext"]) {
      const plain = value => typeof value === "string" ? holo.plain(value) : value;
      if (key in made) made[key] = Array.isArray(made[key]) ? made[key].map(plain) : plain(made[key]);
    }
    if (made.type === "heatmap") {
      if (scale) made.colorscale = scales[scale]();
      made.hoverongaps = false;
      const bar = { thickness: 12, outlinewidth: 0, tickfont: { size: 11 } };
      made.colorbar = narrow ? { ...bar, orientation: "h", y: 1, yanchor: "bottom", len: 1 } : { ...bar, len: 0.9 };
    }
    if (tint === undefined) return made;
    const color = holo.tint(tint);
    return { ...made, line: { ...made.line, color }, marker: { ...made.marker, color } };
  };

  // Axes that name every token name as many as there is room for, each short enough to leave some
  // for the figure; the numbers have them all.
  const thinned = (axis, room) => {
    if (!axis || !axis.ticktext) return axis;
    const every = Math.ceil(axis.ticktext.length * 11 / room);
    const kept = list => list.filter((_, i) => i % every === 0);
    const short = name => {
      const letters = [...holo.unplain(name)];
      return letters.length > 14 ? holo.plain(letters.slice(0, 13).join("")) + "…" : name;
    };
    return { ...axis, tickvals: kept(axis.tickvals), ticktext: kept(axis.ticktext).map(short) };
  };

  // In pixels, about: names side by side in columns as wide as the longest one.
  const legendHeight = width => {
    const names = [...new Set(data.variants[chosen].filter(trace => trace.showlegend !== false).map(trace => trace.name || ""))];
    const columns = Math.max(1, Math.floor(width / (60 + 7 * Math.max(...names.map(name => name.length)))));
    return 19 * Math.ceil(names.length / columns);
  };

  const draw = () => {
    const { xaxis, yaxis, ...rest } = data.layout;
    const title = xaxis && xaxis.title && xaxis.title.text === "variant" ? { title: { text: chosen } } : {};
    const narrow = plot.clientWidth < 600;
    const showlegend = data.variants[chosen].some(trace => trace.name && trace.showlegend !== false);
    // a legend below the figure has a height of its own, which the figure gets in addition
    const below = narrow && showlegend ? legendHeight(plot.clientWidth - 75) : 0;
    plot.style.height = below > 60 ? `calc(26rem + ${below - 60}px)` : "";
    const showgrid = data.variants[chosen].every(trace => trace.type !== "heatmap");
    const turned = xaxis && xaxis.ticktext ? { tickangle: -60 } : {};
    const layout = holo.layout({
      xaxis: holo.axis({ showgrid, ...turned, ...thinned(xaxis, plot.clientWidth - 90), ...title }),
      yaxis: holo.axis({ showgrid, ...thinned(yaxis, plot.clientHeight - 110) }), hovermode: "closest",
      showlegend,
      legend: { orientation: "h", x: 0, ...(narrow ? { yref: "container", y: 0, yanchor: "bottom" } : { y: 1.02, yanchor: "bottom" }) },
      margin: { l: 60, r: 15, t: 40, b: 50 + (below && below + 10) }, ...rest,
    });
    Plotly.react(plot, data.variants[chosen].map(trace => styled(trace, narrow)), layout, holo.config("zoom2d", "pan2d", "resetScale2d"));
    tell();
  };

  // What is drawn, as text. A map has a row for each of its rows, the values one after the other;
  // curves and bars over the same places share a table.
  const told = holo.element("div", { className: "scroll" });
  const summary = holo.element("summary");
  if (data.numbers) {
    const section = drawing.parentElement;
    if (!section.querySelector("h3")) section.append(holo.element("h3", { textContent: holo.say("The numbers") }));
    section.append(holo.element("details", {}, summary, told));
  }

  const tell = () => {
    if (!data.numbers) return;
    summary.textContent = holo.say("All numbers of this figure") + (names.length > 1 ? `: ${chosen}` : "");
    const { xaxis, yaxis } = data.layout;
    const title = (axis, or) => axis && axis.title && axis.title.text || or;
    const labels = axis => axis && axis.ticktext && axis.ticktext.map(holo.unplain);
    const say = value => value === null || value === undefined ? "–" : String(value);
    const places = (count, axis, own) => Array.from({ length: count }, (_, i) => {
      const at = own ? own[i] : i, name = (labels(axis) || [])[at];
      return name === undefined ? [at] : [at, name];
    });
    const heads = (place, axis) => place.length > 1 ? [holo.say("Position"), holo.say("Token")] : [title(axis, holo.say("Place"))];
    const groups = new Map();
    const tables = [];
    for (const trace of data.variants[chosen]) {
      if (trace.z) {
        const rows = places(trace.z.length, yaxis, trace.y);
        const values = (trace.text || trace.z).map(row => {
          const last = row.findLastIndex(value => value !== null && value !== undefined);
          return row.slice(0, last + 1).map(say).join(trace.text ? "; " : " ");
        });
        tables.push([[...heads(rows[0], yaxis), `Values at ${title(xaxis, "place")} 0, 1, 2 and so on`],
          rows.map((place, i) => [...place, values[i]])]);
        continue;
      }
      const over = JSON.stringify(trace.x);
      if (!groups.has(over)) {
        const rows = places(trace.x.length, xaxis, trace.x);
        groups.set(over, [heads(rows[0] || [0], xaxis), rows]);
        tables.push(groups.get(over));
      }
      const [columns, rows] = groups.get(over);
      columns.push(trace.name || title(yaxis, holo.say("Value")));
      rows.forEach((row, i) => row.push(say(trace.y[i])));
    }
    told.replaceChildren(...tables.map(([columns, rows]) => holo.table(columns, rows)));
  };

  if (names.length > 1) holo.select(controls, data.choice, names, i => { chosen = names[i]; draw(); });
  draw();
  return draw;
};
