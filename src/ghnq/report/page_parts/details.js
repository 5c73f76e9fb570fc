// One architecture in a dialog: graph, costs, accuracies, errors of its layers.
const dialog = document.getElementById("details");
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });

// The names of all architectures of which something is known.
const detailed = new Set([...rows.map(row => row.architecture), ...[...candidatesOf.values(), ...trialsOf.values()].flatMap(found => found.map(row => row.model))].filter(Boolean));

async function showDetails(name) {
  const mine = rows.filter(row => row.architecture === name), ranked = inRankings(name), searched = inSearches(name);
  const first = mine.find(row => row.parameters != null) ?? mine[0];
  const title = el("h2", { id: "details-title", tabindex: "-1" }, name);
  const close = el("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const costTable = table(["scheme", "size, bytes", "memory of activations, bytes"],
    unique(mine.map(row => row.scheme)).map(scheme => mine.find(row => row.scheme === scheme)).map(row => [row.scheme, row.weight_bytes == null ? null : Math.round(row.weight_bytes), row.activation_bytes]), "Costs by scheme");
  const accuracyTable = table(["result", "split", "scheme", "accuracy", "drop from float32", "images"],
    mine.map(row => [runName(row), row.split, row.scheme, decimals(row.accuracy), row.drop == null ? null : decimals(row.drop), documents[row.document].accuracies.setting.images]), "Accuracies");
  const layers = documents.filter(each => each.layers?.model === name);
  const drawing = el("div", { class: "drawing", tabindex: "0", role: "region", "aria-label": `Graph of ${name}` });
  const checkpoint = (first ? [documents[first.document]] : documents).flatMap(each => each.facts).find(([what]) => what === "checkpoint")?.[1];
  const unknown = el("p", { class: "soft" }, "Which layers lose how much is not known here. Measure it and add the folder to the report: ",
    el("code", {}, `ghnq sensitivity ${modelWord(name)}${checkpoint ? ` --checkpoint ${checkpoint}` : ""} --out DIR`));
  dialog.replaceChildren(el("div", { class: "head" }, title, close),
    ...(first ? [el("p", { class: "soft" }, `${quantity(first.parameters)} parameters, ${quantity(first.multiply_adds)} multiply-adds for one image`),
      el("h3", {}, "Accuracy"), accuracyTable, el("h3", {}, "Costs"), costTable] : []),
    ...(ranked.length ? [el("h3", {}, "In rankings"), table(["result", "ranked by", "value", "place", "fate", "parameters", "multiply-adds", "bytes", "memory"], ranked, "In rankings")] : []),
    ...(searched.length ? [el("h3", {}, "In searches"), table(["result", "trial", "objectives", "parameters", "depth"], searched, "In searches")] : []),
    el("h3", {}, "Error of each layer"), ...(layers.length ? [] : [unknown]));
  const place = el("div");
  dialog.append(place, el("h3", {}, "Graph"), drawing);
  if (!dialog.open) dialog.showModal();
  title.focus();
  const before = figures.length;
  for (const each of layers) addFigure(place, { id: `details-layers-${documents.indexOf(each)}`, title: `Layers of ${name}, ${each.name}`, build: () => layersFigure(each) });
  dialog.addEventListener("close", () => figures.splice(before), { once: true });
  const packed = content.drawings[name];
  if (packed) drawing.innerHTML = await inflate(packed);
  else drawing.replaceWith(el("p", { class: "soft" }, `It is not drawn here: members of spaces are, the ${content.limits.drawn} most accurate of them, and models of which the result has the graph. Draw it: `,
    el("code", {}, `ghnq draw ${modelWord(name)} -o architecture.html`)));
}
