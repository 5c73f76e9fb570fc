// Searches: objectives against each other with the front, the hypervolume over trials, each objective over trials.
const searches = [...documents.entries()].filter(([, each]) => each.search);
const OBJECTIVE_LABELS = { accuracy: "accuracy, %", macs: "multiply-adds for one image", bytes: "bytes of all parameters at the scheme", memory: "peak bytes of activations for one image" };

// Searches of one group have the same objectives, measured in the same way on the same images.
const searchKey = ({ search }) => JSON.stringify([Object.keys(search.objectives), search.signal, search.scheme, search.images, search.minutes, search.data_hash || search.data]);
const searchGroups = [...new Map(searches.map(([, each]) => [searchKey(each), searches.filter(([, other]) => searchKey(other) === searchKey(each)).map(([number]) => number)])).values()];
const trialsOf = new Map(searches.map(([number, { search }]) => [number, search.trials.trial.map((_, i) => ({ ...Object.fromEntries(Object.entries(search.trials).map(([name, column]) => [name, column[i]])), order: i + 1 }))]));
const shownSearches = group => group.filter(number => filters.documents.has(number));
const objectiveLabel = (search, name) => (name === "accuracy" && search.signal === "loss" ? "minus the loss, nats" : narrow() && name !== "accuracy" ? name : OBJECTIVE_LABELS[name]);

function searchDifference(one, other) {
  const parts = [["objectives", search => Object.keys(search.objectives).join(", ")], ["signals", search => search.signal], ["schemes", search => search.scheme],
    ["numbers of images", search => search.images], ["minutes of fine-tuning", search => search.minutes], ["data", search => search.data]];
  const found = parts.filter(([, get]) => get(one) !== get(other)).map(([what, get]) => `other ${what} (${get(one)}; ${get(other)})`);
  return found.join(", ") || "other images under the same name";
}

// Objectives as numbers that are to be large; sizes by their logarithm.
const gains = (search, row) => Object.values(search.objectives).map((large, i) => (large ? row.values[i] : -Math.log10(Math.max(row.values[i], 1))));
const dominates = (one, other) => one.every((value, i) => value >= other[i]);

// The volume that points dominate above `low`, by slices of the last dimension.
function hypervolume(points, low) {
  const last = low.length - 1;
  const inside = points.filter(point => point.every((value, i) => value > low[i])).sort((a, b) => b[last] - a[last]);
  if (!inside.length) return 0;
  if (last === 0) return inside[0][0] - low[0];
  let volume = 0;
  for (const [i, point] of inside.entries()) {
    const below = i + 1 < inside.length ? inside[i + 1][last] : low[last];
    if (point[last] > below) volume += (point[last] - below) * hypervolume(inside.slice(0, i + 1).map(each => each.slice(0, last)), low.slice(0, last));
  }
  return volume;
}

// After each trial the part of the box between the worst and the best of every objective that is dominated.
function volumes(search, trials, low, high) {
  const span = low.map((value, i) => Math.max(high[i] - value, 1e-12));
  let front = [], volume = 0;
  return trials.map(row => {
    const point = gains(search, row).map((value, i) => (value - low[i]) / span[i]);
    if (!front.some(other => dominates(other, point))) {
      front = [...front.filter(other => !dominates(point, other)), point];
      volume = hypervolume(front, low.map(() => 0));
    }
    return volume;
  });
}

const runTint = (group, number) => colour(group.indexOf(number) + 1);
const trialColumns = search => ["result", "trial", ...Object.keys(search.objectives), "parameters", "depth", "family", "on_front"];
const trialTable = numbers => numbers.flatMap(number => trialsOf.get(number).map(row => [documents[number].name, row.trial, ...row.values, row.parameters, row.depth, row.family, row.model ? 1 : 0]));

function aboutTrial(number, row) {
  const { name, search } = documents[number];
  return `${row.model ? plain(row.model) + "<br>" : ""}${Object.keys(search.objectives).map((objective, i) => `${objective} ${objective === "accuracy" ? decimals(row.values[i]) : quantity(row.values[i])}`).join(", ")}`
    + `<br>${quantity(row.parameters)} parameters, depth ${row.depth}, ${plain(row.family)}<br>trial ${row.trial}, measured as number ${row.order}${searches.length > 1 ? `<br>${plain(name)}` : ""}`;
}

function objectivesFigure(group, across) {
  const numbers = shownSearches(group), { search } = documents[group[0]], names = Object.keys(search.objectives);
  const total = numbers.reduce((count, number) => count + trialsOf.get(number).length, 0);
  if (!total) return null;
  const x = names.indexOf(across), y = 0, data = [];
  for (const number of numbers) {
    const trials = spread(trialsOf.get(number), MOST_POINTS, row => row.order), tint = runTint(group, number), several = numbers.length > 1;
    data.push({ type: "scatter", mode: "markers", name: plain(shorten(documents[number].name, 40)), x: trials.map(row => row.values[x]), y: trials.map(row => row.values[y]),
      customdata: trials.map(row => row.model || null), text: trials.map(row => aboutTrial(number, row)), hovertemplate: "%{text}<extra></extra>", showlegend: several,
      marker: { size: trials.map(row => (row.model ? 11 : 7)), symbol: trials.map(row => (row.model ? "star" : SYMBOLS[group.indexOf(number) % 5])), opacity: 0.85, line: { width: trials.map(row => (row.model ? 1.2 : 0.6)), color: trials.map(row => variable(row.model ? "--ink" : "--card")) },
        ...(several ? { color: tint } : { color: trials.map(row => row.order), colorscale: isDark() ? [[0, "#2c526e"], [1, "#b9e0ff"]] : [[0, "#a9cbe6"], [1, "#08306b"]], cmin: 1,
          cmax: trials.length, showscale: !narrow() && trials.length > 1, colorbar: { title: { text: "measured<br>as number" }, thickness: 12, tickfont: { color: variable("--ink") } } }) } });
    const front = paretoFront(trialsOf.get(number).map(row => ({ x: search.objectives[across] ? -row.values[x] : row.values[x], y: search.objectives[names[y]] ? row.values[y] : -row.values[y], row })));
    data.push({ type: "scatter", mode: "lines", x: front.map(point => point.row.values[x]), y: front.map(point => point.row.values[y]), hoverinfo: "skip",
      name: several ? `front of ${plain(shorten(documents[number].name, 32))}` : "front of these two", line: { shape: "hv", color: several ? tint : variable("--ink"), width: 1.6, dash: "dot" } });
  }
  const layout = baseLayout(narrow() ? 420 : 500);
  const all = numbers.flatMap(number => trialsOf.get(number));
  Object.assign(layout.xaxis, across === "accuracy" ? {} : logAxis(all.map(row => row.values[x]), across === "macs" ? "" : "B"), { title: { text: objectiveLabel(search, across) } });
  Object.assign(layout.yaxis, names[y] === "accuracy" ? {} : logAxis(all.map(row => row.values[y]), names[y] === "macs" ? "" : "B"), { title: { text: objectiveLabel(search, names[y]) } });
  layout.showlegend = true;
  return {
    data, layout, columns: trialColumns(search), table: trialTable(numbers),
    caption: `${counted(total, "architecture")}, each measured at ${search.scheme} on ${search.images.toLocaleString("en")} held-out training images${search.minutes ? ` after ${search.minutes} minutes of fine-tuning` : ""}. `
      + `Stars are on the front of all objectives (${names.join(", ")}); a click on one shows its architecture. The dotted line is the front of the two that are drawn. ${search.worth.join(" ")}`,
  };
}

function volumeFigure(group) {
  const numbers = shownSearches(group), { search } = documents[group[0]], all = group.flatMap(number => trialsOf.get(number)).map(row => gains(search, row));
  if (!numbers.length || !all.length) return null;
  const low = all[0].map((_, i) => all.reduce((least, point) => Math.min(least, point[i]), Infinity)), high = all[0].map((_, i) => all.reduce((most, point) => Math.max(most, point[i]), -Infinity));
  const found = numbers.map(number => [number, volumes(search, trialsOf.get(number), low, high)]);
  const layout = baseLayout(narrow() ? 320 : 380);
  Object.assign(layout.xaxis, { title: { text: "architectures measured" }, rangemode: "tozero" });
  Object.assign(layout.yaxis, { title: { text: "hypervolume, part of the box" }, rangemode: "tozero" });
  layout.showlegend = found.length > 1;
  const names = Object.keys(search.objectives), sizes = names.filter(name => !search.objectives[name]);
  return {
    data: found.map(([number, values]) => ({ type: "scatter", mode: values.length < 40 ? "lines+markers" : "lines", name: plain(shorten(documents[number].name, 40)), x: values.map((_, i) => i + 1), y: values,
      line: { color: runTint(group, number), width: 2, shape: "hv" }, hovertemplate: `after %{x}: %{y:.4f}<extra>${plain(documents[number].name)}</extra>` })),
    layout, columns: ["result", "measured", "hypervolume"], table: found.flatMap(([number, values]) => values.map((value, i) => [documents[number].name, i + 1, value])),
    caption: `${numbers.length === 1 ? "1 search" : numbers.length + " searches"}, ${span(found.map(([, values]) => values.length))} architectures each. The part of the box between the worst and the best value of each objective (${names.join(", ")}`
      + `${sizes.length ? `; ${sizes.join(", ")} by the logarithm` : ""}), over all searches of this section, that architectures measured so far dominate.`,
  };
}

function progressFigure(group, objective) {
  const numbers = shownSearches(group), { search } = documents[group[0]], at = Object.keys(search.objectives).indexOf(objective), large = search.objectives[objective];
  const trials = numbers.flatMap(number => trialsOf.get(number));
  if (!trials.length) return null;
  const data = [];
  for (const number of numbers) {
    const mine = trialsOf.get(number), tint = runTint(group, number), drawn = spread(mine, MOST_POINTS, row => row.order);
    let best = null;
    const record = mine.map(row => (best = best == null ? row.values[at] : large ? Math.max(best, row.values[at]) : Math.min(best, row.values[at])));
    data.push({ type: "scatter", mode: "markers", showlegend: false, x: drawn.map(row => row.order), y: drawn.map(row => row.values[at]), customdata: drawn.map(row => row.model || null),
      text: drawn.map(row => aboutTrial(number, row)), hovertemplate: "%{text}<extra></extra>", marker: { color: tint, size: 6, opacity: 0.55 } });
    data.push({ type: "scatter", mode: "lines", name: `best so far${numbers.length > 1 ? `, ${plain(shorten(documents[number].name, 32))}` : ""}`, x: mine.map(row => row.order), y: record, hoverinfo: "skip", line: { color: tint, width: 2, shape: "hv" } });
  }
  const layout = baseLayout(narrow() ? 320 : 380);
  Object.assign(layout.xaxis, { title: { text: "architectures measured" } });
  Object.assign(layout.yaxis, objective === "accuracy" ? {} : logAxis(trials.map(row => row.values[at]), objective === "macs" ? "" : "B"), { title: { text: objectiveLabel(search, objective) } });
  layout.showlegend = true;
  return { data, layout, columns: trialColumns(search), table: trialTable(numbers), caption: `${counted(trials.length, "architecture")} in the order in which they were measured; line: the ${large ? "largest" : "smallest"} so far.` };
}

function frontTable(group) {
  const numbers = shownSearches(group), { search } = documents[group[0]];
  return {
    columns: ["result", "architecture", ...Object.keys(search.objectives), "parameters", "depth", "family", "trial"],
    rows: numbers.flatMap(number => trialsOf.get(number).filter(row => row.model).sort((a, b) => (search.objectives[Object.keys(search.objectives)[0]] ? -1 : 1) * (a.values[0] - b.values[0]))
      .map(row => [documents[number].name, row.model, ...row.values, row.parameters, row.depth, row.family, row.trial])),
  };
}

function addSearches(group, index) {
  const { search } = documents[group[0]], names = Object.keys(search.objectives), prefix = `search-${index + 1}`;
  const title = searchGroups.length > 1 ? `Search ${index + 1}` : "Search";
  const part = section(prefix, title, el("p", { class: "soft" }, `${search.data}: ${names.join(", ")} at ${search.scheme}`));
  if (index > 0) part.append(el("p", { class: "note" }, `Shown apart from “Search 1”, because these are not comparable: ${searchDifference(documents[searchGroups[0][0]].search, search)}.`));
  addTable(part, `${prefix}-front`, "The front", () => frontTable(group), () => `Architectures that none of the same search is as good as in every objective and better in one; of ${counted(shownSearches(group).reduce((count, number) => count + trialsOf.get(number).length, 0), "architecture")}.`);
  if (names.length > 1) {
    let across = names[1];
    const choose = names.length > 2 ? [selectBox(`${names[0]} against`, names.slice(1).map(name => [name, name]), across, value => { across = value; updateAll(); })] : [];
    addFigure(part, { id: `${prefix}-objectives`, title: "Objectives", controls: choose, build: () => objectivesFigure(group, across) });
  }
  addFigure(part, { id: `${prefix}-hypervolume`, title: names.length > 1 ? "Hypervolume over trials" : "Best so far, relative", build: () => volumeFigure(group) });
  let shown = names[0];
  const choose = names.length > 1 ? [selectBox("objective", names.map(name => [name, name]), shown, value => { shown = value; updateAll(); })] : [];
  addFigure(part, { id: `${prefix}-progress`, title: "Each objective over trials", controls: choose, build: () => progressFigure(group, shown) });
}

// The word by which commands know an architecture: the specs of a front are files in the folder of the search.
const modelWord = name => {
  const found = searches.find(([number]) => trialsOf.get(number).some(row => row.model === name));
  return found ? `${found[1].folder}/front/${name}` : name;
};

// What searches know of one architecture, for its dialog.
const inSearches = name => searches.flatMap(([number, each]) => trialsOf.get(number).filter(row => row.model === name)
  .map(row => [each.name, row.trial, Object.keys(each.search.objectives).map((objective, i) => `${objective} ${objective === "accuracy" ? decimals(row.values[i]) : row.values[i].toLocaleString("en")}`).join(", "), row.parameters, row.depth]));
