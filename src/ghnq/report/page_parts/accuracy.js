// Figures of accuracies: distributions by split and scheme, accuracy against costs, paired differences.
const MOST_POINTS = 5000;
const runName = row => documents[row.document].name;
const one = row => `${plain(row.architecture)}<br>${decimals(row.accuracy)} % at ${plain(row.scheme)}`
  + (row.drop == null || row.scheme === "float32" ? "" : `, ${decimals(row.drop)} points below float32`);
const hover = (row, several) => one(row) + `<br>${quantity(row.parameters)} parameters, ${quantity(row.multiply_adds)} multiply-adds`
  + (row.weight_bytes == null ? "" : `<br>size ${quantity(row.weight_bytes)}B`)
  + (row.activation_bytes == null ? "" : `, memory ${quantity(row.activation_bytes)}B`)
  + (several ? `<br>${plain(runName(row))}` : "");

// Cells of a table: rows by split, scheme and result, in the order in which they appear.
function cells(shown) {
  const found = [];
  for (const split of splits) for (const scheme of schemes) for (const number of documents.keys()) {
    const inside = shown.filter(row => row.split === split && row.scheme === scheme && row.document === number);
    if (inside.length) found.push({ split, scheme, document: number, rows: inside });
  }
  return found;
}

function imageNote(group) {
  const images = group.setting.images;
  return images ? ` Measured on ${images.toLocaleString("en")} images: one image is ${+(100 / images).toPrecision(2)} points.` : "";
}

function distribution(group, value, isDrop) {
  const shown = shownRows(group).filter(row => row[value] != null && !(isDrop && row.scheme === "float32"));
  if (!shown.length) return null;
  const found = cells(shown), several = unique(shown.map(row => row.document)).length > 1;
  const most = Math.max(60, Math.floor(MOST_POINTS / found.length));
  const ticks = [], labels = [], lines = { x: [], y: [] }, data = [], bands = [];
  let y = 0, split = null, drawn = 0;
  for (const cell of found) {
    if (cell.split !== split) {
      y += split === null ? 0 : 0.35;
      bands.push([y, cell.split]);
      split = cell.split;
      y += 1;
    }
    const values = ascending(cell.rows.map(row => row[value]));
    const [low, q1, middle, q3, high] = [0, 0.25, 0.5, 0.75, 1].map(share => quantile(values, share));
    const centre = mean(values), error = standardError(values), tint = schemeColour(cell.scheme);
    ticks.push(y);
    labels.push(plain(shorten(cell.scheme, labelLength())) + (several ? `<br><span style="font-size:85%">${plain(shorten(documents[cell.document].name, labelLength()))}</span>` : ""));
    lines.x.push(low, high, null);
    lines.y.push(y, y, null);
    const points = spread(cell.rows, most, row => row[value]);
    drawn += points.length;
    data.push(
      { type: "bar", orientation: "h", x: [q3 - q1], base: [q1], y: [y], width: [0.62], hoverinfo: "skip", showlegend: false,
        marker: { color: tint, opacity: 0.2, line: { color: tint, width: 1.2 } } },
      { type: "scatter", mode: "markers", x: points.map(row => row[value]), y: points.map(row => y + 0.52 * (jitter(row.id) - 0.5)),
        customdata: points.map(row => row.id), text: points.map(row => hover(row, several)), hovertemplate: "%{text}<extra></extra>",
        showlegend: false, marker: { color: tint, size: points.length > 200 ? 4 : 6, opacity: points.length > 200 ? 0.35 : 0.6 } },
      { type: "scatter", mode: "markers", x: [middle], y: [y], showlegend: false, hoverinfo: "skip",
        marker: { symbol: "line-ns", size: 18, line: { width: 2.4, color: tint } } },
      { type: "scatter", mode: "markers", x: [centre], y: [y], showlegend: false,
        marker: { symbol: "diamond", size: 9, color: variable("--card"), line: { width: 1.8, color: tint } },
        hovertemplate: `mean ${decimals(centre)}${error == null ? "" : ` ± ${decimals(error)}`} over ${counted(values.length, "architecture")}<br>median ${decimals(middle)}, ${decimals(low)} to ${decimals(high)}<extra></extra>` });
    y += 1;
  }
  data.unshift({ type: "scatter", mode: "lines", ...lines, hoverinfo: "skip", showlegend: false, line: { color: variable("--soft"), width: 1 } });
  const layout = baseLayout((several ? 40 : 34) * y + 70);
  const range = dataRange(shown.map(row => row[value]), isDrop ? undefined : [-1, 101]);
  Object.assign(layout.xaxis, { title: { text: isDrop ? "points below float32" : "accuracy, %" }, range,
    zeroline: isDrop, zerolinecolor: variable("--ink"), zerolinewidth: 1.4 });
  Object.assign(layout.yaxis, { tickvals: ticks, ticktext: labels, range: [y - 0.4, -0.6], showgrid: false, ticks: "" });
  layout.barmode = "overlay";
  layout.annotations = bands.map(([at, name]) => ({ x: 0, xref: "paper", y: at, xanchor: "left", showarrow: false,
    text: `<b>${plain(name)}</b>`, font: { size: narrow() ? 12 : 14 } }));
  const architectures = unique(shown.map(row => row.architecture)).length;
  const left = drawn < shown.length ? ` ${drawn.toLocaleString("en")} of ${shown.length.toLocaleString("en")} points are drawn, evenly over their order; boxes and means are of all.` : "";
  const negative = isDrop && shown.some(row => row.drop < 0)
    ? " Left of zero the quantized network classified more images correctly than the float one: rounding changes which borderline images are right." : "";
  return {
    data, layout, columns: ["result", "split", "scheme", "architecture", isDrop ? "drop_from_float32" : "accuracy", "parameters", "multiply_adds"],
    table: shown.map(row => [runName(row), row.split, row.scheme, row.architecture, row[value], row.parameters, row.multiply_adds]),
    caption: `${counted(architectures, "architecture")}, ${counted(shown.length, "row")}; a point is one of them. Box: middle half and median; `
      + `diamond: mean; line: lowest to highest.${imageNote(group)}${negative}${left}`,
  };
}

let cost = Object.keys(COSTS).find(name => rows.some(row => row[name] != null)) ?? "parameters";

function againstCost(group) {
  const shown = shownRows(group).filter(row => row[cost] != null && row[cost] > 0);
  if (!shown.length) return null;
  const several = unique(shown.map(row => row.document)).length > 1;
  const marks = several ? unique(shown.map(row => row.document)) : unique(shown.map(row => row.split));
  const markOf = row => marks.indexOf(several ? row.document : row.split);
  const front = paretoFront(shown.map(row => ({ x: row[cost], y: row.accuracy, row })));
  const kept = new Set([...front.map(point => point.row), ...spread(shown, MOST_POINTS, row => jitter(row.id))]);
  const data = [];
  for (const scheme of schemes) for (const [mark, name] of marks.entries()) {
    const inside = [...kept].filter(row => row.scheme === scheme && markOf(row) === mark);
    if (!inside.length) continue;
    data.push({ type: "scatter", mode: "markers", x: inside.map(row => row[cost]), y: inside.map(row => row.accuracy), showlegend: false,
      customdata: inside.map(row => row.id), text: inside.map(row => hover(row, several)), hovertemplate: "%{text}<extra></extra>",
      marker: { color: schemeColour(scheme), symbol: SYMBOLS[mark % SYMBOLS.length], size: kept.size > 800 ? 5 : 8,
        opacity: kept.size > 800 ? 0.5 : 0.75, line: { width: 0.6, color: variable("--card") } } });
  }
  // The legend has colours and symbols apart: one entry for each pair would fill the figure.
  const entry = (name, marker) => data.push({ type: "scatter", mode: "markers", x: [null], y: [null], name: plain(shorten(name, 40)), hoverinfo: "skip", marker: { size: 9, ...marker } });
  for (const scheme of schemes) if (shown.some(row => row.scheme === scheme)) entry(scheme, { color: schemeColour(scheme) });
  if (marks.length > 1)
    for (const [mark, name] of marks.entries()) entry(several ? documents[name].name : name, { color: variable("--soft"), symbol: SYMBOLS[mark % SYMBOLS.length] });
  data.push({ type: "scatter", mode: "lines", x: front.map(point => point.x), y: front.map(point => point.y), name: "Pareto front",
    line: { shape: "hv", color: variable("--ink"), width: 1.6, dash: "dot" }, hoverinfo: "skip" });
  const layout = baseLayout(narrow() ? 460 : 540);
  Object.assign(layout.legend, { itemclick: false, itemdoubleclick: false });
  Object.assign(layout.xaxis, logAxis(shown.map(row => row[cost]), COSTS[cost].unit), { title: { text: axisTitle(COSTS[cost]) } });
  Object.assign(layout.yaxis, { title: { text: "accuracy, %" }, range: dataRange(shown.map(row => row.accuracy), [-1, 101]) });
  const all = shownRows(group).length;
  const unknown = shown.length < all ? ` ${(all - shown.length).toLocaleString("en")} of ${all.toLocaleString("en")} rows are left out: their ${COSTS[cost].short} is not known.` : "";
  const left = kept.size < shown.length ? ` ${kept.size.toLocaleString("en")} of ${shown.length.toLocaleString("en")} points are drawn; the front is of all.` : "";
  const onFront = new Set(front.map(point => point.row));
  return {
    data, layout, columns: ["result", "split", "scheme", "architecture", "accuracy", cost, "on_front"],
    table: shown.map(row => [runName(row), row.split, row.scheme, row.architecture, row.accuracy, row[cost], onFront.has(row) ? 1 : 0]),
    caption: `${counted(unique(shown.map(row => row.architecture)).length, "architecture")}, ${counted(shown.length, "row")}. On the dotted front (${counted(front.length, "row")}) `
      + `nothing cheaper is as accurate. A click on a point shows its architecture.${imageNote(group)}${unknown}${left}`,
  };
}

let baseline = null;

// Differences in accuracy to the baseline, over architectures that both results have.
function comparisons(group) {
  const shown = shownRows(group), base = group.documents.includes(baseline) ? baseline : group.documents[0];
  const key = row => [row.split, row.scheme, row.architecture].join("\n");
  const ofBase = new Map(shown.filter(row => row.document === base).map(row => [key(row), row.accuracy]));
  return cells(shown.filter(row => row.document !== base && ofBase.has(key(row)))).map(cell => ({ ...cell, base,
    differences: cell.rows.map(row => row.accuracy - ofBase.get(key(row))) }));
}

function paired(group) {
  const found = comparisons(group);
  if (!found.length) return null;
  const name = cell => `${cell.split} · ${cell.scheme}`;
  const results = found.map(cell => ({ ...cell, ...pairedDifference(cell.differences) }));
  const others = unique(found.map(cell => cell.document));
  const keys = unique(found.map(name));
  const data = others.map((number, i) => {
    const mine = results.filter(cell => cell.document === number);
    return { type: "scatter", mode: "markers", name: plain(documents[number].name), x: mine.map(cell => cell.mean),
      y: mine.map(cell => keys.indexOf(name(cell)) + 0.16 * (i - (others.length - 1) / 2)),
      error_x: { type: "data", array: mine.map(cell => cell.half ?? 0), thickness: 1.6, width: 5 },
      text: mine.map(cell => `${plain(name(cell))}<br>${decimals(cell.mean)} ± ${cell.half == null ? "unknown (one pair)" : decimals(cell.half)} points over ${counted(cell.differences.length, "pair")}`),
      hovertemplate: "%{text}<extra></extra>", marker: { size: 9, color: colour(i + 1), symbol: SYMBOLS[i % SYMBOLS.length] } };
  });
  const layout = baseLayout(44 * keys.length + 120);
  Object.assign(layout.xaxis, { title: { text: "points above the baseline" }, rangemode: "tozero", zeroline: true, zerolinecolor: variable("--ink"), zerolinewidth: 1.4 });
  Object.assign(layout.yaxis, { tickvals: keys.map((_, i) => i), ticktext: keys.map(text => plain(shorten(text, labelLength()))), range: [keys.length - 0.4, -0.6] });
  layout.showlegend = true;
  const base = documents[found[0].base].name;
  return {
    data, layout, columns: ["result", "baseline", "split", "scheme", "pairs", "mean_difference", "low_95", "high_95"],
    table: results.map(cell => [documents[cell.document].name, base, cell.split, cell.scheme, cell.differences.length, cell.mean,
      cell.half == null ? null : cell.mean - cell.half, cell.half == null ? null : cell.mean + cell.half]),
    caption: `Accuracy minus that of “${base}” on the same architecture and scheme; mean and its 95 % interval (Student's t) over `
      + `${span(results.map(cell => cell.differences.length))} pairs. It covers the choice of architectures, not that of the images.`,
  };
}

function summaryTable(group) {
  const found = cells(shownRows(group));
  return {
    columns: ["split", "scheme", "result", "architectures", "mean", "standard_error", "lowest", "highest", "drop_from_float32"],
    rows: found.map(cell => {
      const values = cell.rows.map(row => row.accuracy), drops = cell.rows.map(row => row.drop).filter(drop => drop != null);
      return [cell.split, cell.scheme, documents[cell.document].name, values.length, mean(values), standardError(values),
        Math.min(...values), Math.max(...values), drops.length === values.length && cell.scheme !== "float32" ? mean(drops) : null];
    }),
  };
}
