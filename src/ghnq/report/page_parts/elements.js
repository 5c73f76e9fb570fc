// Elements of the page. Every text from the data goes through text nodes, or through `plain` into a figure.
const narrow = () => window.innerWidth < 700;

function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter(child => child != null));
  return element;
}

// Figures read a few HTML tags in texts: a name that looks like one is shown as it is written.
const plain = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function shorten(text, most) {
  if (text.length <= most) return text;
  const head = Math.ceil((most - 1) * 0.6);
  return text.slice(0, head) + "…" + text.slice(text.length - (most - 1 - head));
}

const labelLength = () => (narrow() ? 22 : 34);

// 1234567 -> "1.23 M"
function quantity(value, digits = 3) {
  if (value == null || !isFinite(value)) return "-";
  for (const [size, unit] of [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]])
    if (Math.abs(value) >= size) return +(value / size).toPrecision(digits) + unit;
  return String(+value.toPrecision(digits));
}

const decimals = (value, digits = 2) => {
  if (value == null || !isFinite(value)) return "-";
  const text = value.toFixed(digits);
  return +text === 0 ? (0).toFixed(digits) : text;
};

// "3" or "3 to 7"
const span = values => (Math.min(...values) === Math.max(...values) ? String(values[0]) : `${Math.min(...values)} to ${Math.max(...values)}`);

const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function csv(columns, rows) {
  const cell = value => {
    const text = value == null ? "" : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  return [columns, ...rows].map(row => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function save(name, text) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const MOST_TABLE_ROWS = 500;

// A table of `columns` with `rows`; what is not a number is text. Cells may be elements. Architectures are buttons that
// open what is known of them, so that all that a click on a point shows can be reached by keyboard.
function table(columns, rows, caption) {
  const isText = columns.map((_, i) => rows.some(row => row[i] != null && typeof row[i] !== "number" && !/^-?[\d.,]*$/.test(row[i])));
  const kind = i => (isText[i] ? { class: "text" } : {});
  const named = columns.map(name => ["architecture", "candidate"].includes(name));
  const show = (value, i) => (named[i] && typeof value === "string" && detailed.has(value) ? el("button", { type: "button", class: "link", onclick: () => showDetails(value) }, value)
    : typeof value !== "number" ? value ?? "" : Number.isInteger(value) ? value.toLocaleString("en") : +value.toPrecision(6));
  const body = rows.slice(0, MOST_TABLE_ROWS).map(row => el("tr", {}, row.map((value, i) => el("td", kind(i), show(value, i)))));
  const cut = rows.length > MOST_TABLE_ROWS
    ? el("p", { class: "soft" }, `The first ${MOST_TABLE_ROWS} of ${rows.length.toLocaleString("en")} rows; the CSV has all.`) : null;
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, cut,
    el("table", {}, el("thead", {}, el("tr", {}, columns.map((name, i) => el("th", { scope: "col", ...kind(i) }, name)))),
      el("tbody", {}, body)));
}

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
}
