// A figure given as Plotly traces, with a selector where there are several variants of it, and where
// the page asks for it the numbers of the variant that is drawn, as text.
"use strict";
holo.kinds.picture = (data, drawing, controls) => {
  const names = Object.keys(data.variants);
  const plot = holo.plot(drawing, holo.say("A figure. The numbers are in the tables below."), data.map ? "plot" : "plot low");
  let chosen = names.includes(data.opens) ? data.opens : names[0], over = 0;
  const legend = holo.legend(drawing, () => draw());
  const titled = (axis, or) => axis && axis.title && axis.title.text || or;
  const labelled = axis => axis && axis.ticktext && axis.ticktext.map(holo.unplain);

  const styled = ({ tint, scale, xs, entry, ...trace }, narrow) => {
    const made = { ...trace };
    if (xs) made.x = xs[over];
    for (const key of ["name", "text", "hovertext"]) {
      const plain = value => typeof value === "string" ? holo.plain(value) : value;
      if (key in made) made[key] = Array.isArray(made[key]) ? made[key].map(plain) : plain(made[key]);
    }
    if (made.type === "heatmap") {
      if (scale === "weight") Object.assign(made, holo.weights(made.z, narrow, holo.say("weight")));
      else if (scale) made.colorscale = holo.scales[scale]();
      if (data.map) Object.assign(made, holo.gaps(made.z));
      made.hoverongaps = false;
      made.colorbar ||= holo.bar(narrow && data.map, "", narrow && !data.map ? { orientation: "h", y: 1, yanchor: "bottom", len: 1 } : {});
    }
    if (tint === undefined) return made;
    const color = holo.tint(tint);
    return { ...made, line: { ...made.line, color }, marker: { ...made.marker, color } };
  };

  // Each cell of a map by its two tokens.
  const pointed = trace => {
    const [columns, rows] = [labelled(data.layout.xaxis), labelled(data.layout.yaxis)];
    const text = data.variants[chosen][0].z.map((row, t) => row.map((value, s) =>
      value === null ? "" : `${holo.plain(rows[t])} (${t})<br>${holo.plain(columns[s])} (${s})<br><b>${value}</b>`));
    return { ...trace, hoverinfo: "text", hovertext: text };
  };

  // Axes that name every token name as many as there is room for, each short enough to leave some
  // for the figure; the numbers have them all.
  const thinned = (axis, room) => {
    if (!axis || !axis.ticktext) return axis;
    const [places, named] = holo.ticks(axis.ticktext, room, 14);
    const short = name => {
      const letters = [...holo.unplain(name)];
      return letters.length > 14 ? holo.plain(letters.slice(0, 13).join("")) + "…" : name;
    };
    const tickfont = { size: plot.clientWidth < 600 ? 10 : 11 };
    return { ...axis, tickfont, zeroline: false, tickvals: places.map(i => axis.tickvals[i]), ticktext: named.map(short) };
  };

  const draw = () => {
    const { xaxis, yaxis, ...rest } = data.layout;
    const called = (axis, name) => titled(axis) === "variant" ? { title: { text: name } } : {};
    const narrow = plot.clientWidth < 600;
    const shown = data.variants[chosen];
    const showgrid = shown.every(trace => trace.type !== "heatmap");
    const turned = xaxis && xaxis.ticktext ? { tickangle: -60 } : {};
    const traces = shown.map(trace => ({ ...styled(trace, narrow), visible: !legend.hides(trace) }));
    const layout = data.map
      ? holo.map(plot, labelled(xaxis), labelled(yaxis), [titled(xaxis, ""), titled(yaxis, "")])
      : holo.layout({
        xaxis: holo.axis({ showgrid: showgrid && !(xaxis && xaxis.ticktext), automargin: true, ...turned, ...thinned(xaxis, plot.clientWidth - 90), ...called(xaxis, data.against[over] || chosen) }),
        yaxis: holo.axis({ showgrid, ...thinned(yaxis, plot.clientHeight - 110), ...called(yaxis, chosen) }),
        hovermode: "closest", showlegend: false, margin: { l: 60, r: 15, t: narrow ? 40 : 28, b: 50 }, ...rest,
      });
    Plotly.react(plot, data.map ? traces.map(pointed) : traces, layout, holo.config("zoom2d", "pan2d", "resetScale2d"));
    legend.show(shown.map(trace => styled(trace, narrow)).map((made, i) => ({ ...made, name: shown[i].name, entry: shown[i].entry })));
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
    const say = value => value === null || value === undefined ? "–" : String(value);
    const places = (count, axis, own) => Array.from({ length: count }, (_, i) => {
      const at = own ? own[i] : i, name = (labelled(axis) || [])[at];
      return name === undefined ? [at] : [at, name];
    });
    const heads = (place, axis) => place.length > 1 ? [holo.say("Position"), holo.say("Token")] : [titled(axis, holo.say("Place"))];
    const groups = new Map();
    const tables = [];
    for (const trace of data.variants[chosen]) {
      if (trace.z) {
        const rows = places(trace.z.length, yaxis, trace.y);
        const values = (trace.text || trace.z).map(row => {
          const last = row.findLastIndex(value => value !== null && value !== undefined);
          return row.slice(0, last + 1).map(say).join(trace.text ? "; " : " ");
        });
        tables.push([[...heads(rows[0], yaxis), holo.say("Values at {0} 0, 1, 2 and so on").replace("{0}", () => titled(xaxis, "place"))],
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
      columns.push(trace.name || titled(yaxis, holo.say("Value")));
      rows.forEach((row, i) => row.push(say(trace.y[i])));
    }
    told.replaceChildren(...tables.map(([columns, rows]) => holo.table(columns, rows)));
  };

  if (names.length > 1) {
    holo.select(controls, data.choice, names, i => { chosen = names[i]; draw(); }).value = String(names.indexOf(chosen));
  }
  if (data.against.length > 1) holo.select(controls, holo.say("Against"), data.against, i => { over = i; draw(); });
  draw();
  holo.unclutter(plot);
  return draw;
};
