// Curves over training steps; validation accuracies share one figure.
const MOST_CURVE_POINTS = 1500;
const LOGARITHMIC = ["lr", "gradient_norm"];
const CURVE_TITLES = { loss: "Loss", accuracy: "Accuracy on training batches", lr: "Learning rate", gradient_norm: "Norm of the gradient",
  "val/accuracy": "Validation accuracy" };
const isAccuracy = name => name.startsWith("val/") && !["val/sem", "val/max"].includes(name);
let axis = "step";

function curveGroups() {
  const names = unique(documents.flatMap(each => each.curves.map(curve => curve.name))).filter(name => !["seconds", "val/sem", "val/max"].includes(name));
  const singles = names.filter(name => !isAccuracy(name));
  return [...(names.some(isAccuracy) ? [{ title: CURVE_TITLES["val/accuracy"], id: "val", names: names.filter(isAccuracy) }] : []),
    ...singles.map(name => ({ title: CURVE_TITLES[name] ?? name, id: name.replace(/\W+/g, "-"), names: [name] }))];
}

// Minutes at steps, from the seconds in the log, which validations do not have.
function minutes(each, steps) {
  const clock = each.curves.find(curve => curve.name === "seconds");
  if (!clock) return null;
  let at = 0;
  return steps.map(step => {
    while (at + 1 < clock.steps.length && clock.steps[at + 1] <= step) at++;
    return clock.values[at] == null ? null : clock.values[at] / 60;
  });
}

function binned(xs, ys) {
  const size = Math.ceil(ys.length / MOST_CURVE_POINTS);
  if (size <= 1) return [xs, ys];
  const starts = Array.from({ length: Math.ceil(ys.length / size) }, (_, i) => i * size);
  const middle = (values, start) => { const part = values.slice(start, start + size).filter(value => value != null); return part.length ? mean(part) : null; };
  return [starts.map(start => middle(xs, start)), starts.map(start => middle(ys, start))];
}

function curvesFigure({ names }) {
  const found = [...documents.entries()].filter(([number]) => filters.documents.has(number))
    .flatMap(([number, each]) => each.curves.filter(curve => names.includes(curve.name)).map(curve => ({ number, each, curve })));
  if (!found.length) return null;
  const several = unique(found.map(part => part.number)).length > 1, noisy = !names.some(isAccuracy);
  const runs = unique(found.map(part => part.number)), data = [];
  let cut = false;
  for (const { number, each, curve } of found) {
    const time = axis === "minutes" ? minutes(each, curve.steps) : curve.steps;
    if (!time) continue;
    const [x, y] = binned(time, curve.values);
    cut ||= y.length < curve.values.length;
    const tint = names.length > 1 ? colour(names.indexOf(curve.name)) : colour(runs.indexOf(number) + 1);
    const dash = names.length > 1 && several ? ["solid", "dash", "dot", "dashdot"][runs.indexOf(number) % 4] : "solid";
    const label = [names.length > 1 ? curve.name.replace("val/", "") : null, several ? each.name : null].filter(Boolean).join(" · ") || curve.name;
    const style = { x, name: plain(shorten(label, 44)), legendgroup: `${number} ${curve.name}`, hovertemplate: `%{x:,.0f}: %{y:.4g}<extra>${plain(label)}</extra>` };
    const smooth = noisy && y.length > 60 && curve.name !== "lr";
    if (smooth) data.push({ ...style, type: "scatter", mode: "lines", y, opacity: 0.3, showlegend: false, line: { color: tint, width: 1 } });
    data.push({ ...style, type: "scatter", mode: y.length < 40 ? "lines+markers" : "lines", y: smooth ? runningMean(y, Math.ceil(y.length / 60)) : y, line: { color: tint, width: 2, dash } });
  }
  if (!data.length) return null;
  const layout = baseLayout(narrow() ? 320 : 380);
  layout.showlegend = found.length > 1;
  Object.assign(layout.xaxis, { title: { text: axis === "minutes" ? "minutes of training" : "step" } });
  const values = data.flatMap(trace => trace.y).filter(value => value != null);
  if (LOGARITHMIC.includes(names[0]) && values.every(value => value > 0) && names.length === 1) Object.assign(layout.yaxis, logAxis(values, ""));
  if (names.some(isAccuracy) || names[0] === "accuracy") layout.yaxis.title = { text: "accuracy, %" };
  const entries = found.map(part => part.curve.values.length);
  return {
    data, layout, columns: ["result", "quantity", "step", "value"],
    table: found.flatMap(({ each, curve }) => curve.steps.map((step, i) => [each.name, curve.name, step, curve.values[i]])),
    caption: `${counted(runs.length, "run")}, ${span(entries)} entries of the log each.`
      + (noisy && data.some(trace => trace.opacity) ? " Thin: as logged; thick: running mean." : "") + (cut ? " Long curves are drawn as means of neighbouring entries." : ""),
  };
}
