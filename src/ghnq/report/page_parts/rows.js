// The data of the page: rows of accuracies, groups of results that are comparable, and what the filters leave.
const content = JSON.parse(await inflate(document.getElementById("data").textContent));
const documents = content.documents;
const rows = [];
for (const [number, each] of documents.entries()) {
  const columns = each.accuracies?.columns;
  if (!columns) continue;
  const text = name => i => columns[name].levels[columns[name].codes[i]];
  const value = name => i => columns[name]?.[i] ?? null;
  const read = [text("architecture"), text("split"), text("scheme"), ...["accuracy", "drop", "parameters", "multiply_adds",
    "weight_bytes", "activation_bytes"].map(value)];
  for (let i = 0; i < columns.accuracy.length; i++) {
    const [architecture, split, scheme, accuracy, drop, parameters, multiply_adds, weight_bytes, activation_bytes] =
      read.map(column => column(i));
    rows.push({ id: rows.length, document: number, architecture, split, scheme, accuracy, drop, parameters,
      multiply_adds, weight_bytes, activation_bytes });
  }
}
const unique = values => [...new Set(values)];
const schemes = unique(rows.map(row => row.scheme));
const splits = unique(rows.map(row => row.split));

const COSTS = {
  multiply_adds: { label: "multiply-adds for one image", short: "multiply-adds", unit: "" },
  weight_bytes: { label: "size: parameters x bits of a weight / 8, bytes", short: "size", unit: "B" },
  activation_bytes: { label: "memory: most bytes of activations live at once", short: "memory", unit: "B" },
  parameters: { label: "parameters", short: "parameters", unit: "" },
};

// Accuracies of one group were measured on the same images under the same protocol.
const groupKey = setting => [setting.data_hash || setting.data, setting.images, setting.of, setting.protocol].join("\n");
const groups = [];
for (const [number, each] of documents.entries()) {
  if (!each.accuracies) continue;
  const setting = each.accuracies.setting, key = groupKey(setting);
  const known = groups.find(group => group.key === key);
  if (known) known.documents.push(number);
  else groups.push({ key, setting, documents: [number] });
}
const settingText = setting => `${setting.data}: ${setting.images == null ? "an unknown number of" : setting.images.toLocaleString("en")} `
  + `${setting.of === "val" ? "held-out training" : "test"} images, ${setting.protocol}`;

// Why two groups are shown apart.
function difference(one, other) {
  const reasons = [];
  if (one.data !== other.data) reasons.push(`other data (${one.data}, ${other.data})`);
  else if (one.data_hash !== other.data_hash)
    reasons.push(one.data_hash && other.data_hash ? "other images under the same name" : "of one of them it is not recorded which images they were");
  if (one.images !== other.images || one.of !== other.of)
    reasons.push(`other images of them (${one.images} of ${one.of}, ${other.images} of ${other.of})`);
  if (one.protocol !== other.protocol) reasons.push(`other protocols (${one.protocol}; ${other.protocol})`);
  return reasons.join(", ");
}

const filters = { documents: new Set(documents.keys()), splits: new Set(splits), schemes: new Set(schemes), text: "",
  accuracy: null, multiply_adds: null };
const passes = row => filters.documents.has(row.document) && filters.splits.has(row.split) && filters.schemes.has(row.scheme)
  && (filters.accuracy == null || row.accuracy >= filters.accuracy)
  && (filters.multiply_adds == null || (row.multiply_adds != null && row.multiply_adds <= filters.multiply_adds))
  && (!filters.text || row.architecture.toLowerCase().includes(filters.text));
const shownRows = group => rows.filter(row => group.documents.includes(row.document) && passes(row));
