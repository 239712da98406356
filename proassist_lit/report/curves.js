"use strict";
// Training curves as small multiples: train and val of one quantity share a panel.

const PANEL = { width: 320, height: 150, left: 44, right: 8, top: 6, bottom: 20 };
const LOG_RATIO = 25; // values that span more than this are drawn on a logarithmic axis
const PANELS_IN_SIGHT = 12;

function drawCurves(curves) {
  const panels = new Map();
  for (const curve of curves) {
    const cut = /^(train|val|test)\/(.+)$/.exec(curve.name);
    const name = cut ? cut[2] : curve.name;
    if (!panels.has(name)) panels.set(name, []);
    panels.get(name).push({ ...curve, split: cut ? cut[1] : "" });
  }
  const rank = (name) => (name === "loss" ? 0 : /loss/.test(name) ? 1 : /^lr/.test(name) ? 3 : 2);
  const names = [...panels.keys()].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
  names.forEach((name, i) => {
    byId(i < PANELS_IN_SIGHT ? "panels" : "more-panels").append(curvePanel(name, panels.get(name)));
  });
  const more = names.length - PANELS_IN_SIGHT;
  byId("more-curves").hidden = more <= 0;
  byId("more-curves").firstElementChild.textContent = `${plural(more, "more curve")}`;
  byId("curves").hidden = names.length === 0;
}

function curvePanel(name, series) {
  const order = { train: 0, val: 1, test: 2, "": 0 };
  series.sort((a, b) => order[a.split] - order[b.split]);
  const finite = series.flatMap((s) => s.values.filter((v) => v !== null));
  const lost = series.reduce((sum, s) => sum + s.values.filter((v) => v === null).length, 0);
  let low = Math.min(...finite), high = Math.max(...finite);
  const log = low > 0 && high / low > LOG_RATIO;
  if (!finite.length) low = 0, high = 1;
  if (low === high) low -= Math.abs(low) * 0.1 || 0.5, high += Math.abs(high) * 0.1 || 0.5;
  const steps = series.flatMap((s) => s.steps);
  const first = Math.min(...steps), last = Math.max(...steps, first + 1);
  const scale = log ? Math.log : (v) => v;
  const { width, height, left, right, top, bottom } = PANEL;
  const x = (step) => left + ((step - first) / (last - first)) * (width - left - right);
  const y = (v) => top + (1 - (scale(v) - scale(low)) / (scale(high) - scale(low))) * (height - top - bottom);
  const text = (px, py, anchor, content) => svg("text", { x: px, y: py, "text-anchor": anchor }, content);

  const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name} over steps` });
  for (const v of log ? [low, Math.sqrt(low * high), high] : [low, (low + high) / 2, high]) {
    plot.append(
      svg("line", { class: "grid", x1: left, x2: width - right, y1: y(v), y2: y(v) }),
      text(left - 5, y(v) + 3.5, "end", tickText(v)),
    );
  }
  plot.append(text(left, height - 5, "start", first.toLocaleString("en")));
  plot.append(text(width - right, height - 5, "end", "step " + last.toLocaleString("en")));
  const values = series.map(() => el("span"));
  for (const s of series) {
    const ink = `ink c${order[s.split]}`;
    if (s.values.length <= 40 || isSmooth(s.values)) {
      plot.append(svg("path", { class: `smooth ${ink}`, d: path(s.steps, s.values, x, y) }));
      if (s.values.length <= 40) s.values.forEach((v, i) => v !== null && plot.append(svg("circle", { class: ink, cx: x(s.steps[i]), cy: y(v), r: 2.2 })));
    } else {
      plot.append(svg("path", { class: `raw ${ink}`, d: path(s.steps, s.values, x, y) }));
      plot.append(svg("path", { class: `smooth ${ink}`, d: path(s.steps, smoothed(s.values), x, y) }));
    }
  }
  const hair = svg("line", { class: "theta-line", y1: top, y2: height - bottom, visibility: "hidden" });
  plot.append(hair);

  const say = (step) => series.forEach((s, k) => {
    const i = step === null ? s.values.length - 1 : nearest(s.steps, step);
    const label = s.split ? s.split + " " : "";
    values[k].replaceChildren(
      el("span", { class: `ink c${order[s.split]}` }, "● "),
      `${label}${tickText(s.values[i])}`,
      el("span", { class: "small" }, step === null ? " at the end" : ` at ${s.steps[i].toLocaleString("en")}`),
    );
  });
  say(null);
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * width;
    const step = first + clamp((px - left) / (width - left - right), 0, 1) * (last - first);
    hair.setAttribute("x1", x(step)), hair.setAttribute("x2", x(step));
    hair.setAttribute("visibility", "visible");
    say(step);
  });
  plot.addEventListener("pointerleave", () => (hair.setAttribute("visibility", "hidden"), say(null)));

  const remarks = [log ? "log scale" : "", lost ? `${lost} not finite` : ""].filter(Boolean).join(", ");
  return el("figure", { class: "panel" },
    el("figcaption", {}, el("b", {}, name, remarks ? el("small", {}, " " + remarks) : ""), ...values), plot);
}

function path(steps, values, x, y) {
  let d = "", pen = "M";
  values.forEach((v, i) => {
    if (v === null) return void (pen = "M");
    d += pen + x(steps[i]).toFixed(1) + " " + y(v).toFixed(1), pen = "L";
  });
  return d;
}

/** Whether a curve goes up and down no more than a few times over, as a learning rate does. */
function isSmooth(values) {
  const v = values.filter((value) => value !== null);
  const way = v.reduce((sum, value, i) => sum + (i ? Math.abs(value - v[i - 1]) : 0), 0);
  return way <= 3 * (v.reduce((a, b) => Math.max(a, b), -Infinity) - v.reduce((a, b) => Math.min(a, b), Infinity));
}

/** Exponential mean over about a thirtieth of the curve, free of the pull towards zero at its start. */
function smoothed(values) {
  const keep = 1 - 1 / Math.max(2, values.length / 30);
  let sum = 0, weight = 0;
  return values.map((v) => {
    if (v === null) return null;
    sum = keep * sum + (1 - keep) * v, weight = keep * weight + (1 - keep);
    return sum / weight;
  });
}

function tickText(v) {
  if (v === null || v === undefined) return "not finite";
  const size = Math.abs(v);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return v.toExponential(1);
  return String(Number(v.toPrecision(3)));
}
