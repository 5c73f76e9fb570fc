// Layers of one network: the error of quantizing each, or the bits that each got.
function layerErrors(each) {
  const { rows: layers, images, scheme, model } = each.layers, names = layers.map(row => row.layer);
  const about = row => `${plain(row.layer)}, ${plain(row.bits)}<br>${quantity(row.weights)} weights, ${quantity(row.multiply_adds)} multiply-adds`
    + (row.sqnr == null ? "" : `<br>SQNR ${decimals(row.sqnr, 1)} dB alone`);
  const bar = (key, name, tint) => ({ type: "bar", orientation: "h", name, x: layers.map(row => row[key]), y: names.map((_, i) => i), marker: { color: tint },
    text: layers.map(about), textposition: "none", hovertemplate: `%{text}<br>%{x:.3f}<extra>${name}</extra>` });
  const layout = baseLayout(34 * names.length + 120);
  Object.assign(layout.yaxis, { tickvals: names.map((_, i) => i), ticktext: names.map(name => plain(shorten(name, labelLength()))), range: [names.length - 0.4, -0.6] });
  Object.assign(layout.xaxis, { title: { text: "KL divergence, nats / 1000" }, zeroline: true, zerolinecolor: variable("--ink") });
  layout.barmode = "group";
  const negative = layers.some(row => row.saved < 0)
    ? " A negative bar: with this layer alone in float the network is further from the float one, because errors of other layers cancelled against its error." : "";
  return {
    data: [bar("alone", "quantized alone", colour(3)), bar("saved", "saved by leaving it in float", colour(1))], layout,
    columns: ["layer", "bits", "weights", "multiply_adds", "divergence_alone", "saved_in_float", "sqnr_alone_db", "accuracy_alone"],
    table: layers.map(row => [row.layer, row.bits, row.weights, row.multiply_adds, row.alone, row.saved, row.sqnr, row.accuracy_alone]),
    caption: `${model}, ${scheme}: ${counted(layers.length, "layer")}, on ${images.toLocaleString("en")} images. Divergence of the class probabilities from the float network's.${negative}`,
  };
}

const weightBits = bits => (/^w(\d+)/.exec(bits) ? +/^w(\d+)/.exec(bits)[1] : 32);

function layerBits(each) {
  const { rows: layers, model } = each.layers, names = layers.map(row => row.layer);
  const layout = baseLayout(28 * names.length + 100);
  Object.assign(layout.yaxis, { tickvals: names.map((_, i) => i), ticktext: names.map(name => plain(shorten(name, labelLength()))), range: [names.length - 0.4, -0.6] });
  Object.assign(layout.xaxis, { title: { text: "bits of a weight" }, dtick: 2, rangemode: "tozero" });
  return {
    data: [{ type: "bar", orientation: "h", x: layers.map(row => weightBits(row.bits)), y: names.map((_, i) => i),
      marker: { color: layers.map(row => colour([2, 4, 8].indexOf(weightBits(row.bits)) + 1)) }, text: layers.map(row => `${plain(row.layer)}: ${plain(row.bits)}`
        + (row.weights == null ? "" : `, ${quantity(row.weights)} weights`)), textposition: "none", hovertemplate: "%{text}<extra></extra>" }],
    layout, columns: ["layer", "bits", "weights", "multiply_adds"], table: layers.map(row => [row.layer, row.bits, row.weights, row.multiply_adds]),
    caption: `${model}: the bits that each of ${counted(layers.length, "layer")} got under the budget.`,
  };
}

const layersFigure = each => (each.layers.rows.some(row => row.alone != null) ? layerErrors(each) : layerBits(each));
