// One figure: title, plot, caption, table, CSV. `build` is called again when filters, theme or width change.
const LIGHT = ["#1b3a57", "#0072b2", "#b87400", "#d55e00", "#00795a", "#a8408a", "#3a86b8", "#6b6b6b"];
const DARK = ["#d4e5f5", "#56b4e9", "#f0b23e", "#ff8a4c", "#3ad6a5", "#e79bca", "#8ecbf5", "#b0b0b0"];
const SYMBOLS = ["circle", "diamond", "square", "triangle-up", "cross", "star", "triangle-down", "pentagon"];
const isDark = () => getComputedStyle(document.documentElement).colorScheme.startsWith("dark");
const colour = index => (isDark() ? DARK : LIGHT)[index % LIGHT.length];
const variable = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const schemeColour = scheme => colour(schemes.indexOf(scheme));
const figures = [];

function baseLayout(height) {
  const axis = { gridcolor: variable("--grid"), linecolor: variable("--soft"), zeroline: false, automargin: true };
  return {
    height, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    font: { family: "Inter, system-ui, Helvetica, Arial, sans-serif", size: narrow() ? 11 : 13, color: variable("--ink") },
    margin: { t: 16, r: 16, b: 48, l: 56 }, dragmode: narrow() ? false : "zoom",
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hoverlabel: { bgcolor: variable("--card"), bordercolor: variable("--soft"), font: { color: variable("--ink") }, align: "left" },
    xaxis: { ...axis }, yaxis: { ...axis },
  };
}

// A range that data fill, with a margin of 4 %.
function dataRange(values, limits = [-Infinity, Infinity]) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  const margin = Math.max(0.04 * (high - low), 0.5);
  return [Math.max(limits[0], low - margin), Math.min(limits[1], high + margin)];
}

// At least three round numbers in equal steps, the largest for which there are so many: 1, 2 or 5 times a power of ten.
function evenTicks(low, high) {
  const power = 10 ** Math.floor(Math.log10(high - low));
  for (const step of [2, 1, 0.5, 0.2, 0.1].map(each => each * power)) {
    const first = Math.ceil(low / step), last = Math.floor(high / step);
    if (last - first >= (narrow() ? 2 : 3)) return Array.from({ length: last - first + 1 }, (_, i) => +((first + i) * step).toPrecision(12));
  }
  return [low, high];
}

// A logarithmic axis whose ticks are numbers that one reads: powers of ten, 1, 3 or 1, 2, 5, else equal steps.
function logAxis(values, unit) {
  const low = Math.log10(Math.min(...values)), high = Math.log10(Math.max(...values));
  const margin = Math.max(0.04 * (high - low), 0.02), bounds = [10 ** (low - margin), 10 ** (high + margin)];
  let shown = [];
  for (const steps of [[1], [1, 3], [1, 2, 5]]) {
    const ticks = [];
    for (let power = Math.floor(low - margin) - 1; power <= high + margin; power++)
      for (const step of steps) ticks.push(+`${step}e${power}`);
    shown = ticks.filter(tick => tick >= bounds[0] && tick <= bounds[1]);
    if (shown.length >= (narrow() ? 3 : 4)) break;
  }
  if (shown.length < 3) shown = evenTicks(...bounds);
  const digits = [3, 4, 5, 6, 7, 8].find(count => shown.every(tick => Math.abs(+tick.toPrecision(count) - tick) < 1e-9 * tick)) ?? 9;
  return { type: "log", range: [low - margin, high + margin], tickvals: shown,
    ticktext: shown.map(tick => quantity(tick, digits) + (unit && tick >= 1000 ? unit : unit ? " " + unit : "")) };
}

const axisTitle = ({ label, short }) => (narrow() ? short : label);

function addFigure(parent, { id, title, controls = [], build }) {
  const plot = el("div", { class: "plot" });
  const empty = el("p", { class: "empty", hidden: true }, "Nothing is left to show: the filters exclude all rows of this figure.");
  const caption = el("figcaption");
  const holder = el("details", { class: "table" }, el("summary", {}, "Table"));
  let shown = null;
  const button = el("button", { type: "button", onclick: () => shown && save(`${id}.csv`, csv(shown.columns, shown.table)),
    "aria-label": `Save the table of “${title}” as CSV` }, "CSV");
  const fill = () => {
    holder.querySelector(".scroll")?.remove();
    if (holder.open && shown) holder.append(table(shown.columns, shown.table, `Table of ${title}`));
  };
  holder.addEventListener("toggle", fill);
  parent.append(el("figure", { id }, el("div", { class: "head" }, el("h3", {}, title), el("div", { class: "controls" }, controls, button)),
    plot, empty, caption, holder));
  const update = () => {
    shown = build();
    empty.hidden = Boolean(shown);
    plot.hidden = holder.hidden = button.hidden = !shown;
    caption.textContent = shown ? shown.caption : "";
    if (!shown) { Plotly.purge(plot); return; }
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", `${title}. ${shown.caption} The table below has the same numbers.`);
    Plotly.react(plot, shown.data, shown.layout, { displaylogo: false, responsive: true, displayModeBar: narrow() ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d"] });
    plot.removeAllListeners?.("plotly_click");
    plot.on("plotly_click", event => {
      const clicked = event.points[0]?.customdata, name = typeof clicked === "string" ? clicked : rows[clicked]?.architecture;
      if (name) showDetails(name);
    });
    fill();
  };
  figures.push(update);
  update();
  return update;
}

const updateAll = () => figures.forEach(update => update());

function selectBox(label, options, chosen, onchange) {
  const box = el("select", { onchange: () => onchange(box.value) },
    options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
  return el("label", {}, label + " ", box);
}
