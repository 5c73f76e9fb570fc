// The page: results, filters, one section for each group of comparable results, then curves, layers and costs.
const main = document.getElementById("main"), contents = el("ul");
document.getElementById("contents").append(contents);

function section(id, title, ...children) {
  const part = el("section", { id, "aria-label": title }, el("h2", {}, title), ...children);
  main.append(part);
  contents.append(el("li", {}, el("a", { href: `#${id}` }, title)));
  return part;
}

const root = document.documentElement, theme = document.getElementById("theme");
theme.addEventListener("change", () => {
  if (theme.value === "auto") root.removeAttribute("data-theme");
  else root.setAttribute("data-theme", theme.value);
  updateAll();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", updateAll);

document.getElementById("subtitle").textContent = `${counted(documents.length, "result")}, ${counted(rows.length, "row")} of accuracies, ghnq ${content.version}`;

const results = section("results", "Results");
results.append(...content.notes.map(note => el("p", { class: "note" }, `Left out: ${note}`)), el("div", { class: "runs" }, documents.map(each =>
  el("div", { class: "card" }, el("h3", {}, each.name), el("p", { class: "soft" }, `ghnq ${each.kind}, ${each.folder}`),
    each.notes.map(note => el("p", { class: "note" }, note)),
    el("dl", {}, each.facts.flatMap(([what, value]) => [el("dt", {}, what), el("dd", {}, value)])),
    each.commands.length ? each.commands.map(command => el("pre", { tabindex: "0" }, command)) : el("p", { class: "soft" }, "The command that made it was not recorded.")))));

let waiting = 0;
const status = el("span", { class: "soft", role: "status", "aria-live": "polite" });
function filtersChanged() {
  clearTimeout(waiting);
  waiting = setTimeout(() => { updateAll(); countShown(); }, 120);
}
function countShown() {
  const count = rows.filter(passes).length;
  status.textContent = ` ${count.toLocaleString("en")} of ${counted(rows.length, "row")} shown`;
}
function choices(title, names, chosen) {
  return el("fieldset", {}, el("legend", {}, title), el("div", { class: "choices" }, names.map(([value, text]) => el("label", {},
    el("input", { type: "checkbox", checked: true, "data-filter": title, value, onchange: event => {
      if (event.target.checked) chosen.add(value); else chosen.delete(value);
      filtersChanged();
    } }), shorten(text, 44)))));
}
function field(label, type, oninput) {
  return el("label", { class: "field" }, label, el("input", { type, min: type === "number" ? "0" : null, step: "any", oninput: event => { oninput(event.target.value); filtersChanged(); } }));
}
const amount = text => (text === "" || !isFinite(+text) ? null : +text);
const box = el("details", {}, el("summary", {}, "Filters", status), el("div", {},
  documents.length > 1 ? choices("results", documents.map((each, i) => [i, each.name]), filters.documents) : null,
  splits.length > 1 ? choices("splits", splits.map(split => [split, split]), filters.splits) : null,
  schemes.length > 1 ? choices("schemes", schemes.map(scheme => [scheme, scheme]), filters.schemes) : null,
  rows.length ? [field("architecture contains", "search", text => { filters.text = text.trim().toLowerCase(); }),
    field("accuracy at least, %", "number", text => { filters.accuracy = amount(text); }),
    field("multiply-adds at most, millions", "number", text => { filters.multiply_adds = amount(text) == null ? null : 1e6 * amount(text); })] : null));
box.open = !narrow() && rows.length > 0;
if (rows.length || documents.length > 1) document.getElementById("filters").append(box);
else document.getElementById("filters").remove();
countShown();

const COUNTS = new Set(["architectures", "place", "parameters", "multiply_adds", "bytes", "peak_memory", "macs", "memory", "depth", "trial"]);

function addTable(part, id, title, make, caption) {
  const place = el("div"), button = el("button", { type: "button", "aria-label": `Save “${title}” as CSV`, onclick: () => { const { columns, rows: body } = make(); save(`${id}.csv`, csv(columns, body)); } }, "CSV");
  const about = el("figcaption");
  part.append(el("figure", { id }, el("div", { class: "head" }, el("h3", {}, title), el("div", { class: "controls" }, button)), place, about));
  const update = () => {
    const { columns, rows: body } = make();
    place.replaceChildren(table(columns.map(name => name.replaceAll("_", " ")), body.map(row => row.map((value, i) => (typeof value === "number" && !COUNTS.has(columns[i]) ? decimals(value) : value))), title));
    about.textContent = caption();
  };
  figures.push(update);
  update();
}

// The list of architectures: what a click on a point shows, by keyboard.
function addArchitectures(part, group, id) {
  const place = el("div");
  part.append(el("figure", { id }, el("h3", {}, "Architectures"), place, el("figcaption", {}, "The most accurate first, by their highest accuracy at any scheme shown; a button opens graph, costs and layers.")));
  const update = () => {
    const best = new Map();
    for (const row of shownRows(group)) if (!(best.get(row.architecture)?.accuracy >= row.accuracy)) best.set(row.architecture, row);
    const sorted = [...best.values()].sort((a, b) => b.accuracy - a.accuracy);
    place.replaceChildren(table(["architecture", "highest accuracy, %", "at", "parameters", "multiply-adds"], sorted.slice(0, 100).map(row => [
      el("button", { type: "button", class: "link", onclick: () => showDetails(row.architecture) }, row.architecture), decimals(row.accuracy), row.scheme, row.parameters, row.multiply_adds]), "Architectures"));
    if (sorted.length > 100) place.append(el("p", { class: "soft" }, `The first 100 of ${sorted.length.toLocaleString("en")}; the filters find others.`));
  };
  figures.push(update);
  update();
}

for (const [number, group] of groups.entries()) {
  const name = groups.length > 1 ? `Accuracy ${number + 1}` : "Accuracy", prefix = `accuracy-${number + 1}`;
  const part = section(prefix, name, el("p", { class: "soft" }, settingText(group.setting)));
  if (number > 0) part.append(el("p", { class: "note" }, `Shown apart from “Accuracy 1”, because these are not comparable: ${difference(groups[0].setting, group.setting)}.`));
  const mine = rows.filter(row => group.documents.includes(row.document));
  addTable(part, `${prefix}-summary`, "Summary", () => summaryTable(group), () => `Accuracy in percent; standard error of the mean over architectures.${imageNote(group)}`);
  addFigure(part, { id: `${prefix}-distribution`, title: "Accuracy by split and scheme", build: () => distribution(group, "accuracy", false) });
  if (mine.some(row => row.drop != null && row.scheme !== "float32"))
    addFigure(part, { id: `${prefix}-drop`, title: "Drop from float32", build: () => distribution(group, "drop", true) });
  const known = Object.keys(COSTS).filter(each => mine.some(row => row[each] != null));
  if (known.length) {
    const choose = selectBox("against", known.map(each => [each, COSTS[each].short]), cost, value => { cost = value; updateAll(); });
    addFigure(part, { id: `${prefix}-cost`, title: "Accuracy against cost", controls: [choose], build: () => againstCost(group) });
  }
  if (comparisons(group).length) {
    const choose = selectBox("baseline", group.documents.map(each => [String(each), shorten(documents[each].name, 40)]), String(group.documents[0]), value => { baseline = +value; updateAll(); });
    addFigure(part, { id: `${prefix}-paired`, title: "Paired differences between results", controls: group.documents.length > 1 ? [choose] : [], build: () => paired(group) });
  }
  addArchitectures(part, group, `${prefix}-architectures`);
}

for (const [number] of rankings) addRanking(number);
addOrders();
for (const [index, group] of searchGroups.entries()) addSearches(group, index);

if (documents.some(each => each.curves.length)) {
  const part = section("training", "Training curves");
  if (documents.some(each => each.curves.some(curve => curve.name === "seconds")))
    part.append(el("p", { class: "controls" }, selectBox("horizontal axis", [["step", "step"], ["minutes", "minutes"]], axis, value => { axis = value; updateAll(); })));
  for (const each of curveGroups()) addFigure(part, { id: `curve-${each.id}`, title: each.title, build: () => curvesFigure(each) });
}
if (documents.some(each => each.layers)) {
  const part = section("layers", "Layers");
  for (const [number, each] of documents.entries())
    if (each.layers) addFigure(part, { id: `layers-${number}`, title: each.layers.rows.some(row => row.alone != null) ? `Error of each layer: ${each.name}` : `Bits of each layer: ${each.name}`,
      build: () => (filters.documents.has(number) ? layersFigure(each) : null) });
}
if (documents.some(each => each.costs)) addFigure(section("costs", "Costs of files"), { id: "costs-figure", title: "Times less than in float32", build: costsFigure });

document.getElementById("footer").append(el("p", {}, `Made with ghnq ${content.version}`, ...(content.command ? [" by ", el("code", {}, content.command)] : []),
  ". Figures: plotly.js (MIT license). Everything is in this file; it loads nothing."));
let width = window.innerWidth;
window.addEventListener("resize", () => { if ((width < 700) !== narrow()) updateAll(); width = window.innerWidth; });
root.dataset.ready = "true";
