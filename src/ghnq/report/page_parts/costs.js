// Costs of exported files, beside those of the same networks in float32.
function costsFigure() {
  const measured = [...documents.entries()].filter(([number, each]) => each.costs && filters.documents.has(number));
  if (!measured.length) return null;
  const names = measured[0][1].costs.rows.map(row => row.cost);
  const data = measured.map(([number, each], i) => ({ type: "bar", orientation: "h", name: plain(shorten(each.name, 40)), y: names.map((_, at) => at),
    x: each.costs.rows.map(row => (row.file > 0 ? row.float32 / row.file : null)), marker: { color: colour(i + 1) },
    text: each.costs.rows.map(row => `${plain(row.cost)}<br>${quantity(row.file)} ${row.unit} instead of ${quantity(row.float32)} ${row.unit}`),
    textposition: "none", hovertemplate: "%{text}<br>%{x:.2f} times less<extra></extra>" }));
  const layout = baseLayout(30 * names.length * Math.max(1, 0.6 * measured.length) + 130);
  Object.assign(layout.xaxis, { title: { text: "float32 / file (more is better)" }, rangemode: "tozero" });
  Object.assign(layout.yaxis, { tickvals: names.map((_, i) => i), ticktext: names.map(name => plain(shorten(name, labelLength()))), range: [names.length - 0.4, -0.6] });
  layout.barmode = "group";
  layout.showlegend = measured.length > 1;
  layout.shapes = [{ type: "line", x0: 1, x1: 1, y0: 0, y1: 1, yref: "paper", line: { color: variable("--ink"), width: 1.4 } }];
  return {
    data, layout, columns: ["result", "file", "cost", "unit", "of_file", "of_float32", "float32_over_file"],
    table: measured.flatMap(([, each]) => each.costs.rows.map(row => [each.name, each.costs.file, row.cost, row.unit, row.file, row.float32, row.file > 0 ? row.float32 / row.file : null])),
    caption: `How many times less the file costs than the same network in float32; left of the line at 1 it costs more. `
      + measured.map(([, each]) => `${each.name}: ${each.costs.measured}.`).join(" "),
  };
}
