// Rankings: what candidates are ranked by against what they cost, what became of each, what the order is worth.
const rankings = [...documents.entries()].filter(([, each]) => each.ranking);
const SIZES = {
  multiply_adds: { label: "multiply-adds for one image", short: "multiply-adds", unit: "" },
  bytes: { label: "bytes of all parameters at the scheme", short: "bytes", unit: "B" },
  peak_memory: { label: "memory: peak bytes of activations for one image", short: "memory", unit: "B" },
  parameters: { label: "parameters", short: "parameters", unit: "" },
};
const LIMITED = { "--max-params": "parameters", "--max-macs": "multiply_adds", "--max-bytes": "bytes", "--max-memory": "peak_memory" };

// The candidates of a ranking as objects, those that the filters leave.
const candidatesOf = new Map(rankings.map(([number, { ranking }]) => [number, ranking.candidates.model.map((_, i) =>
  Object.fromEntries(Object.entries(ranking.candidates).map(([name, column]) => [name, column[i]])))]));
const shownCandidates = number => (!filters.documents.has(number) ? [] : candidatesOf.get(number).filter(row =>
  (!filters.text || row.model.toLowerCase().includes(filters.text))
  && (filters.multiply_adds == null || (row.multiply_adds != null && row.multiply_adds <= filters.multiply_adds))));

const fate = row => (row.limit ? `taken by ${row.limit}` : row.place != null ? "among the best" : row.round == null ? "failed later" : "measured");
const FATES = ["among the best", "measured", "failed later", ...Object.keys(LIMITED).map(option => `taken by ${option}`)];
const aboutCandidate = (row, rounds) => `${plain(row.model)}<br>${row.value == null ? "" : `${plain(rounds[row.round - 1].signal)} ${decimals(row.value, 3)}, round ${row.round}`
  + (row.place == null ? "<br>" : `, place ${row.place}<br>`)}${quantity(row.multiply_adds)} multiply-adds, ${quantity(row.parameters)} parameters<br>`
  + `${quantity(row.bytes)}B of parameters, ${row.peak_memory == null ? "unknown" : quantity(row.peak_memory) + "B"} of activations<br>${fate(row)}`;

function marksOf(rows, x, y, rounds, name, marker) {
  return { type: "scatter", mode: "markers", name, x: rows.map(row => row[x]), y: rows.map(row => row[y]), customdata: rows.map(row => row.model),
    text: rows.map(row => aboutCandidate(row, rounds)), hovertemplate: "%{text}<extra></extra>",
    marker: { size: rows.length > 800 ? 5 : 8, opacity: rows.length > 800 ? 0.5 : 0.8, line: { width: 0.6, color: variable("--card") }, ...marker } };
}

const candidateColumns = ["candidate", "fate", "round", "value", "place", "parameters", "multiply_adds", "bytes", "peak_memory"];
const candidateTable = rows => rows.map(row => [row.model, fate(row), row.round, row.value, row.place, row.parameters, row.multiply_adds, row.bytes, row.peak_memory]);
const drawnPart = (drawn, all) => (drawn < all ? ` ${drawn.toLocaleString("en")} of ${all.toLocaleString("en")} points are drawn.` : "");

let rankCost = "multiply_adds", budgetSize = "bytes";

function signalFigure(number) {
  const { ranking } = documents[number], last = ranking.rounds.length;
  // Values of different signals are not on one scale.
  const comparable = shownCandidates(number).filter(row => row.round != null && ranking.rounds[row.round - 1].signal === ranking.signal);
  const shown = comparable.filter(row => row.value != null && row[rankCost] > 0);
  if (!shown.length) return null;
  const front = paretoFront(shown.filter(row => row.round === last).map(row => ({ x: row[rankCost], y: row.value, row })));
  const best = shown.filter(row => row.place != null), kept = spread(shown, MOST_POINTS, row => jitter(row.value));
  const data = ranking.rounds.map((_, i) => [i + 1, kept.filter(row => row.round === i + 1 && row.place == null)]).filter(([, inside]) => inside.length)
    .map(([round, inside]) => marksOf(inside, rankCost, "value", ranking.rounds, last > 1 ? `left in round ${round}` : "measured", { color: colour(round === last ? 1 : 6 + (last - round) % 2), symbol: SYMBOLS[last - round] ?? "circle" }));
  if (best.length) data.push(marksOf(best, rankCost, "value", ranking.rounds, "the best", { color: colour(3), symbol: "star", size: 12 }));
  data.push({ type: "scatter", mode: "lines", x: front.map(point => point.x), y: front.map(point => point.y), name: "Pareto front",
    line: { shape: "hv", color: variable("--ink"), width: 1.6, dash: "dot" }, hoverinfo: "skip" });
  const layout = baseLayout(narrow() ? 420 : 480);
  Object.assign(layout.xaxis, logAxis(shown.map(row => row[rankCost]), SIZES[rankCost].unit), { title: { text: axisTitle(SIZES[rankCost]) } });
  Object.assign(layout.yaxis, { title: { text: plain(ranking.signal) } });
  layout.showlegend = true;
  const rounds = ranking.rounds.map(round => `${counted(round.candidates, "candidate")} by “${round.signal}” ${round.images ? `on ${counted(round.images, "image")}` : "from their graphs"}${round.seconds ? ` with ${round.seconds} s of training` : ""}`);
  return {
    data, layout, columns: candidateColumns, table: candidateTable(shown),
    caption: `${counted(shown.length, "candidate")} with a value of “${ranking.signal}” at ${ranking.scheme}; larger is better. ${last > 1 ? "Rounds" : "One round"}: ${rounds.join("; ")}`
      + `${ranking.rounds.some(round => round.images) ? " (held-out training images)" : ""}.${last > 1 ? " Values of different rounds are of different images or seconds of training." : ""} On the dotted front of the last round (${counted(front.length, "candidate")}) nothing cheaper has as high a value.`
      + ` A click on a point shows the candidate.${drawnPart(kept.length, shown.length)}`,
  };
}

function budgetFigure(number) {
  const { ranking } = documents[number];
  const shown = shownCandidates(number).filter(row => row.multiply_adds > 0 && row[budgetSize] > 0);
  if (!shown.length) return null;
  const kept = spread(shown, MOST_POINTS, row => jitter(row.multiply_adds));
  const data = FATES.map((name, i) => [name, i, kept.filter(row => fate(row) === name)]).filter(([, , inside]) => inside.length)
    .map(([name, i, inside]) => marksOf(inside, "multiply_adds", budgetSize, ranking.rounds, name, { color: colour([3, 1, 7, 2, 5, 4, 6][i]), symbol: ["star", ...SYMBOLS][i], size: i ? 8 : 12 }));
  const layout = baseLayout(narrow() ? 420 : 480), limits = Object.entries(ranking.limits).map(([option, limit]) => [LIMITED[option], limit]);
  const line = (limit, isX) => ({ type: "line", [isX ? "x0" : "y0"]: limit, [isX ? "x1" : "y1"]: limit, [isX ? "y0" : "x0"]: 0, [isX ? "y1" : "x1"]: 1,
    [isX ? "yref" : "xref"]: "paper", line: { color: variable("--soft"), width: 1.4, dash: "dash" } });
  layout.shapes = limits.filter(([size]) => size === "multiply_adds" || size === budgetSize).map(([size, limit]) => line(limit, size === "multiply_adds"));
  Object.assign(layout.xaxis, logAxis(shown.map(row => row.multiply_adds), ""), { title: { text: SIZES.multiply_adds.label } });
  Object.assign(layout.yaxis, logAxis(shown.map(row => row[budgetSize]), SIZES[budgetSize].unit), { title: { text: axisTitle(SIZES[budgetSize]) } });
  layout.showlegend = true;
  const taken = Object.keys(ranking.limits).map(option => `${option} ${ranking.limits[option].toLocaleString("en")} took ${candidatesOf.get(number).filter(row => row.limit === option).length.toLocaleString("en")}`);
  const failed = ranking.failures.length ? ` ${counted(ranking.failures.length, "candidate")} failed.` : "";
  return {
    data, layout, columns: candidateColumns, table: candidateTable(shown),
    caption: `${counted(shown.length, "candidate")} of ${ranking.all.toLocaleString("en")}. ${taken.length ? `Limits (dashed where they are on an axis): ${taken.join(", ")}; a candidate above several is with the first.` : "No limit was given."}${failed}${drawnPart(kept.length, shown.length)}`,
  };
}

function worthFigure(number) {
  const { ranking } = documents[number], names = ranking.signals.map(row => row.signal);
  if (!names.length || !filters.documents.has(number)) return null;
  const kinds = [["all networks", "tau", "interval", 1], ["within a budget", "within_budget", "within_interval", 3]].filter(([, key]) => ranking.signals.some(row => row[key] != null));
  const bars = kinds.map(([name, key, interval, tint]) => ({ type: "bar", orientation: "h", name, x: ranking.signals.map(row => row[key]), y: names.map((_, i) => i), marker: { color: colour(tint) },
    error_x: { type: "data", symmetric: false, array: ranking.signals.map(row => (row[interval] ? row[interval][1] - row[key] : 0)), arrayminus: ranking.signals.map(row => (row[interval] ? row[key] - row[interval][0] : 0)),
      color: variable("--ink"), thickness: 1.2, width: 4, visible: ranking.signals.some(row => row[interval]) },
    text: ranking.signals.map(row => `${plain(row.signal)}, ${name}: ${decimals(row[key])}${row[interval] ? ` (${row[interval].map(bound => decimals(bound)).join(" to ")})` : ""}`), textposition: "none", hovertemplate: "%{text}<extra></extra>" }));
  const values = ranking.signals.flatMap(row => [row.tau, row.within_budget ?? 0, ...(row.interval ?? []), ...(row.within_interval ?? [])]);
  const layout = baseLayout((kinds.length > 1 ? 46 : 34) * names.length + 110);
  Object.assign(layout.xaxis, { title: { text: `Kendall's tau${narrow() ? "" : " with the accuracy of trained networks"}` }, range: [Math.min(0, ...values) - 0.05, 1.02], zeroline: true, zerolinecolor: variable("--ink") });
  Object.assign(layout.yaxis, { tickvals: names.map((_, i) => i), ticktext: names.map(name => plain(name) + (name === ranking.signal ? " (used)" : "")), range: [names.length - 0.4, -0.6] });
  layout.barmode = "group";
  layout.showlegend = kinds.length > 1;
  const bounds = row => [...(row.interval ?? [null, null]), row.within_budget, ...(row.within_interval ?? [null, null])];
  return {
    data: bars, layout, columns: ["signal", "kendalls_tau", "low_95", "high_95", "within_a_budget", "within_low_95", "within_high_95", "used"],
    table: ranking.signals.map(row => [row.signal, row.tau, ...bounds(row), row.signal === ranking.signal ? "yes" : "no"]),
    caption: ranking.worth.join(" "),
  };
}

function bestTable(number) {
  const { ranking } = documents[number], tests = Object.keys(ranking.best[0]?.test ?? {}), schemesOf = Object.keys(ranking.best[0]?.accuracy ?? {});
  const byName = new Map(candidatesOf.get(number).map(row => [row.model, row])), latency = ranking.best.some(row => row.latency_ms != null);
  return {
    columns: ["place", "candidate", ranking.signal, ...schemesOf.map(name => `${name}, %`), ...tests.map(name => `test ${name}, %`), "parameters", "multiply_adds", "bytes", "peak_memory", ...(latency ? ["latency, ms"] : []), "front"],
    rows: ranking.best.map((row, i) => {
      const sizes = byName.get(row.model) ?? {};
      return [i + 1, row.model, sizes.value, ...schemesOf.map(name => row.accuracy[name]), ...tests.map(name => row.test[name]), sizes.parameters, sizes.multiply_adds,
        sizes.bytes, sizes.peak_memory, ...(latency ? [row.latency_ms] : []), row.pareto ? "yes" : "no"];
    }),
  };
}

function addRanking(number) {
  const { name, ranking } = documents[number], prefix = `ranking-${number}`;
  const part = section(prefix, rankings.length > 1 ? `Ranking: ${name}` : "Ranking");
  const choose = (label, keys, chosen, set) => selectBox(label, keys.map(key => [key, SIZES[key].short]), chosen, value => { set(value); updateAll(); });
  addTable(part, `${prefix}-best`, `The best by “${ranking.signal}”`, () => bestTable(number), () => `${counted(ranking.best.length, "candidate")} of ${ranking.all.toLocaleString("en")}; accuracies on ${ranking.images.toLocaleString("en")} held-out training images`
    + `; bytes and memory at ${ranking.scheme}; front: none of these is as accurate at ${ranking.scheme} and as small in everything.`);
  addFigure(part, { id: `${prefix}-signal`, title: `“${ranking.signal}” against cost`, controls: [choose("against", Object.keys(SIZES), rankCost, value => { rankCost = value; })], build: () => signalFigure(number) });
  addFigure(part, { id: `${prefix}-budget`, title: "What became of the candidates", controls: [choose("multiply-adds and", ["bytes", "peak_memory", "parameters"], budgetSize, value => { budgetSize = value; })], build: () => budgetFigure(number) });
  if (ranking.failures.length) addTable(part, `${prefix}-failed`, "Candidates that failed", () => ({ columns: ["candidate", "reason"], rows: ranking.failures }), () => `${counted(ranking.failures.length, "candidate")}.`);
  addFigure(part, { id: `${prefix}-worth`, title: "What the order is worth", build: () => worthFigure(number) });
}

// What was measured in a later round comes before what was not, whatever the values: these are of different images.
const betterFirst = (one, other) => other.round - one.round || (other.value ?? -Infinity) - (one.value ?? -Infinity) || 0;
const MOST_COMPARED = 3000;
let rankBaseline = null;

// Candidates that two rankings measured, each as [row of the one, row of the other].
function sharedCandidates(one, other) {
  const known = new Map(candidatesOf.get(one).filter(row => row.round != null).map(row => [row.model, row]));
  return shownCandidates(other).filter(row => row.round != null && known.has(row.model)).map(row => [known.get(row.model), row]);
}

const comparable = rankings.some(([one]) => rankings.some(([other]) => one < other && sharedCandidates(one, other).length > 1));

function ordersFigure() {
  const numbers = rankings.map(([number]) => number).filter(number => filters.documents.has(number)), base = numbers.includes(rankBaseline) ? rankBaseline : numbers[0];
  const found = numbers.filter(number => number !== base).map(number => [number, sharedCandidates(base, number)]).filter(([, pairs]) => pairs.length > 1);
  if (!found.length) return null;
  const label = number => `${documents[number].name}: ${documents[number].ranking.signal}`;
  const places = (pairs, part) => new Map([...pairs].sort((a, b) => betterFirst(a[part], b[part])).map((pair, i) => [pair, i + 1]));
  const results = found.map(([number, pairs]) => {
    const used = spread(pairs, MOST_COMPARED, ([row]) => jitter(row.multiply_adds ?? 0)), first = places(used, 0), second = places(used, 1);
    return { number, pairs, used, first, second, tau: kendallTau(used, betterFirst) };
  });
  const layout = baseLayout(narrow() ? 420 : 500);
  Object.assign(layout.xaxis, { title: { text: narrow() ? "place in the baseline" : `place in ${plain(shorten(label(base), 60))}` }, rangemode: "tozero" });
  Object.assign(layout.yaxis, { title: { text: "place in the other ranking" }, rangemode: "tozero" });
  layout.showlegend = true;
  return {
    data: results.map(({ number, used, first, second }, i) => ({ type: "scatter", mode: "markers", name: plain(shorten(label(number), 44)), x: used.map(pair => first.get(pair)), y: used.map(pair => second.get(pair)),
      customdata: used.map(([row]) => row.model), text: used.map(pair => `${plain(pair[0].model)}<br>place ${first.get(pair)}, and ${second.get(pair)}`), hovertemplate: "%{text}<extra></extra>",
      marker: { color: colour(i + 1), symbol: SYMBOLS[i % SYMBOLS.length], size: used.length > 800 ? 4 : 8, opacity: used.length > 800 ? 0.4 : 0.75 } })),
    layout, columns: ["result", "baseline", "candidate", "place", "place_in_baseline"],
    table: results.flatMap(({ number, used, first, second }) => used.map(pair => [documents[number].name, documents[base].name, pair[0].model, second.get(pair), first.get(pair)])),
    caption: results.map(({ number, pairs, used, tau }) => `${label(number)}: Kendall's tau-b with “${label(base)}” is ${tau == null ? "not defined, all are equal" : decimals(tau)} over ${counted(used.length, "candidate")}`
      + `${used.length < pairs.length ? ` of ${pairs.length.toLocaleString("en")}` : ""} that both measured.`).join(" ") + " 1 is the same order, 0 is chance. Candidates of later rounds come first.",
  };
}

function addOrders() {
  if (!comparable) return;
  const choose = selectBox("baseline", rankings.map(([number, each]) => [String(number), shorten(each.name, 40)]), String(rankings[0][0]), value => { rankBaseline = +value; updateAll(); });
  addFigure(section("orders", "Rankings compared"), { id: "orders-figure", title: "Do rankings agree?", controls: [choose], build: ordersFigure });
}

// What rankings know of one architecture, for its dialog.
const inRankings = name => rankings.flatMap(([number, each]) => candidatesOf.get(number).filter(row => row.model === name)
  .map(row => [each.name, each.ranking.signal, row.value, row.place, fate(row), row.parameters, row.multiply_adds, row.bytes, row.peak_memory]));
