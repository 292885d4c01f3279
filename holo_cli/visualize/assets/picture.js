// A figure given as Plotly traces, with a selector where there are several variants of it.
"use strict";
holo.kinds.picture = (data, drawing, controls) => {
  const names = Object.keys(data.variants);
  const plot = holo.plot(drawing, "A figure. The numbers are in the tables below.", "plot low");
  let chosen = names[0];

  const tinted = ({ tint, ...trace }) => {
    const made = { ...trace };
    for (const key of ["name", "text", "hovertext"]) {
      const plain = value => typeof value === "string" ? holo.plain(value) : value;
      if (key in made) made[key] = Array.isArray(made[key]) ? made[key].map(plain) : plain(made[key]);
    }
    if (tint === undefined) return made;
    const color = holo.tint(tint);
    return { ...made, line: { ...made.line, color }, marker: { ...made.marker, color } };
  };

  const draw = () => {
    const { xaxis, yaxis, ...rest } = data.layout;
    const title = xaxis && xaxis.title && xaxis.title.text === "variant" ? { title: { text: chosen } } : {};
    const narrow = plot.clientWidth < 600;
    const layout = holo.layout({
      xaxis: holo.axis({ ...xaxis, ...title }), yaxis: holo.axis(yaxis), showlegend: true, hovermode: "closest",
      legend: { orientation: "h", x: 0, ...(narrow ? { y: -0.22, yanchor: "top" } : { y: 1.02, yanchor: "bottom" }) },
      margin: { l: 60, r: 15, t: 40, b: 50 }, ...rest,
    });
    Plotly.react(plot, data.variants[chosen].map(tinted), layout, holo.config("zoom2d", "pan2d", "resetScale2d"));
  };

  if (names.length > 1) holo.select(controls, data.choice, names, i => { chosen = names[i]; draw(); });
  draw();
  return draw;
};
