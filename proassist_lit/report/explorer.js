"use strict";
// Moves the thresholds: frames are counted anew, free-running metrics come from what was streamed.

const EXPLORED = {
  speak: { title: "Speak", frames: "to speak at", curve: ["utterance_f1", "utterance_precision", "utterance_recall"] },
  dst: { title: "Update the state", frames: "to update at", curve: ["dst_update_f1", "dst_joint_goal_accuracy"] },
};
const SHAPES = ["circle", "square", "triangle"];
const otherHead = (head) => (head === "speak" ? "dst" : "speak");

/**
 * Scores over single frames when yes is decided at probabilities >= `theta`. No probability lies
 * between `theta` and the smallest known threshold of at least `theta`, so its point holds.
 */
function decidedAt(curves, theta) {
  const k = curves.thresholds.findIndex((threshold) => threshold >= theta);
  if (k < 0) return { cut: null, precision: 0, recall: 0, f1: 0, right: 0, yes: 0 };
  const precision = curves.precisions[k], recall = curves.recalls[k], right = Math.round(recall * curves.positive);
  return { cut: curves.thresholds[k], precision, recall, f1: right ? (2 * precision * recall) / (precision + recall) : 0,
    right, yes: right ? Math.round(right / precision) : null };
}

/** The swept point that is nearest in the threshold of `head`, and of those the nearest in the other. */
function streamedAt(points, head, thetas) {
  const far = (point, of) => Math.abs(point[of] - (thetas[of] ?? 0.5));
  const nearestIn = (list, of) => {
    const least = Math.min(...list.map((point) => far(point, of)));
    return list.filter((point) => far(point, of) <= least + 1e-12);
  };
  return nearestIn(nearestIn(points, head), otherHead(head))[0];
}

/** Points along the threshold of `head` at one value of the other, the nearest that was swept; [] for none. */
function sweptLine(points, head, thetas) {
  const lines = new Map();
  for (const point of points) {
    const at = point[otherHead(head)];
    lines.set(at, [...(lines.get(at) || []), point]);
  }
  const long = [...lines].filter(([, line]) => line.length > 1).sort(([a], [b]) => Math.abs(a - thetas[otherHead(head)]) - Math.abs(b - thetas[otherHead(head)]));
  return long.length ? long[0][1].sort((a, b) => a[head] - b[head]) : [];
}

class Explorer {
  constructor(splits) {
    this.splits = splits.map((split) => ({ ...split, at: { speak: split.theta.speak ?? 0.5, dst: split.theta.dst ?? 0.5 } }));
    byId("explored").append(...splits.map((split, k) => el("option", { value: k }, split.split)));
    byId("explored-box").hidden = splits.length < 2;
    byId("explored").addEventListener("change", () => this.show(Number(byId("explored").value)));
    byId("thresholds").hidden = false;
    this.show(Math.max(0, splits.findIndex((split) => split.sweep)));
  }

  show(k) {
    this.split = this.splits[k];
    byId("explored").value = k;
    byId("explored-note").textContent = "Frames are counted anew from the probabilities of the run's streams. What was heard depends on everything said before, so utterances and updates are shown as they were streamed in the sweep, never in between."
      + (this.split.split === "test" ? " Thresholds are chosen on val: look here, choose there." : "");
    this.parts = Object.keys(EXPLORED).filter((head) => this.split.heads[head] || this.values(head).size > 1).map((head) => this.part(head));
    byId("heads").replaceChildren(...this.parts.map((part) => part.node));
    this.draw();
  }

  /** Values of the threshold of `head` that were swept. */
  values(head) {
    return new Set(this.split.sweep ? this.split.sweep.points.map((point) => point[head]) : []);
  }

  part(head) {
    const id = `theta-${head}`, used = this.split.theta[head];
    const slider = el("input", { type: "range", id, min: 0, max: 1, step: "any", oninput: () => this.move(head, this.snapped(head, Number(slider.value))) });
    const number = el("input", { type: "number", min: 0, max: 1, step: 0.01, "aria-label": `Threshold: ${EXPLORED[head].title}`,
      onchange: () => number.value !== "" && Number.isFinite(number.valueAsNumber) && this.move(head, clamp(number.valueAsNumber, 0, 1)) });
    const back = el("button", { type: "button", class: "as-run", hidden: used === null, onclick: () => this.move(head, used) }, `as run: ${tickTheta(used ?? 0)}`);
    // The knob of a slider stays inside its rail: its middle goes from half a knob to half a knob.
    const mark = el("span", { class: "run-mark", hidden: used === null, style: { left: `calc(8px + ${used ?? 0} * (100% - 16px))` }, title: `threshold of the run: ${used}` });
    const table = el("table"), plots = el("div", { class: "plots" });
    const node = el("div", { class: `head head-${head}`, role: "group", "aria-label": EXPLORED[head].title },
      el("h3", { style: { color: `var(--${head})` } }, EXPLORED[head].title, el("small", {}, head === "speak" ? " when P(speak) ≥ θ" : " when P(update) ≥ θ")),
      el("div", { class: "theta-row" }, el("label", { for: id }, "θ"), el("span", { class: "rail" }, slider, mark), number, back),
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${EXPLORED[head].title}: metrics` }, table), plots);
    return { head, node, slider, number, table, plots };
  }

  /** What the slider stands at, in hundredths; the run's own threshold is one of its stops. */
  snapped(head, value) {
    const hundredth = Math.round(value * 100) / 100, used = this.split.theta[head];
    return used !== null && Math.abs(value - used) <= Math.abs(value - hundredth) ? used : hundredth;
  }

  move(head, theta) {
    this.split.at[head] = theta;
    this.draw();
  }

  draw() {
    for (const part of this.parts) {
      const theta = this.split.at[part.head];
      part.slider.value = theta;
      part.slider.setAttribute("aria-valuetext", tickTheta(theta));
      part.number.value = Number(theta.toPrecision(4));
      this.drawTable(part);
      this.drawPlots(part);
    }
  }

  drawTable({ head, table }) {
    const { heads, sweep, at, run, lower } = this.split, curves = heads[head], bodies = [];
    const row = (name, label, value) => {
      const was = run[name], change = was === undefined || value === undefined ? null : value - was;
      const better = change === null || Math.abs(change) < 5e-4 ? null : (lower.includes(name) ? Math.abs(value) < Math.abs(was) : change > 0);
      return el("tr", { "data-name": name }, el("th", { scope: "row", title: name }, label), el("td", { class: "here" }, score(value)), el("td", { class: "was" }, score(was)),
        el("td", { class: `change ${gainOf(better)}` }, change === null ? "" : Math.abs(change) < 5e-4 ? "=" : changeText(change, better)));
    };
    const group = (title, note) => el("tr", { class: "group" }, el("th", { colspan: 4, scope: "colgroup" }, el("b", {}, title), " ", note));
    if (curves) {
      const now = decidedAt(curves, at[head]);
      const yes = now.cut === null ? "no frame reaches θ" : `${now.yes === null ? "none right; " : `yes at ${now.yes.toLocaleString("en")}, right at ${now.right.toLocaleString("en")}; `}counted at P ≥ ${tickTheta(now.cut)}`;
      bodies.push(el("tbody", { class: "frames" }, group("Frames", `${curves.frames.toLocaleString("en")}, of them ${curves.positive.toLocaleString("en")} ${EXPLORED[head].frames}; ${yes}`),
        ...["f1", "precision", "recall"].map((name) => row(`${head}_${name}`, { f1: "F1", precision: "precision", recall: "recall" }[name], now[name]))));
    }
    if (sweep && sweep.names[head].length) {
      const point = streamedAt(sweep.points, head, at), second = this.values(otherHead(head)).size > 1 ? `, θ ${head === "speak" ? "of updates" : "of speaking"} ${tickTheta(point[otherHead(head)])}` : "";
      bodies.push(el("tbody", { class: "streamed" }, group("Streamed", `at ${tickTheta(point[head])}${second}`),
        ...sweep.names[head].map((name) => row(name, sweep.labels[name], point.values[name]))));
    }
    table.replaceChildren(el("thead", {}, el("tr", {}, el("th", {}), el("th", { scope: "col" }, "here"), el("th", { scope: "col" }, "as run"), el("th", { scope: "col" }, "change"))), ...bodies);
  }

  drawPlots({ head, plots }) {
    const { heads, sweep, at, theta } = this.split, curves = heads[head], figures = [];
    if (curves) figures.push(precisionRecall(curves, at[head], theta[head], head), calibration(curves, at[head], theta[head], head));
    const line = sweep ? sweptLine(sweep.points, head, at) : [];
    const names = EXPLORED[head].curve.filter((name) => line.some((point) => name in point.values));
    if (names.length) figures.push(sweepCurve(line, names, sweep.labels, streamedAt(sweep.points, head, at), head, at, theta[head]));
    plots.replaceChildren(...figures);
  }
}

const tickTheta = (theta) => String(Number(theta.toPrecision(4)));
const figure = (title, note, plot) => el("figure", { class: "panel" }, el("figcaption", {}, el("b", {}, title), note), plot.node);

function precisionRecall(curves, at, used, head) {
  const plot = new Plot("Precision over recall of the frames", "recall", "precision"), share = curves.positive / curves.frames;
  plot.line([[0, share], [1, share]], "theta-line");
  plot.line(curves.recalls.map((recall, k) => [recall, curves.precisions[k]]), `smooth ink ink-${head}`);
  const was = used === null ? null : decidedAt(curves, used), now = decidedAt(curves, at);
  if (was && was.cut !== null) plot.dots([[was.recall, was.precision]], "run-dot", "square", 4);
  plot.dots([[now.recall, now.precision]], "here-dot", "circle", 5);
  return figure("Precision and recall", el("span", {}, "● here ", used === null ? "" : "□ as run ", "┄ guessing"), plot);
}

function calibration(curves, at, used, head) {
  const strip = 46, plot = new Plot("Share of positive frames over their mean probability", "mean probability of the bin", "share of positives", strip);
  plot.line([[0, 0], [1, 1]], "theta-line");
  const most = Math.log1p(Math.max(...curves.bins.map(([, , n]) => n)));
  for (const [k, [mean, share, n]] of curves.bins.entries()) {
    const tall = (Math.log1p(n) / most) * (strip - 24), top = plot.floor - tall;
    plot.add("rect", { class: `bar bar-${head}`, x: plot.x(mean) - 5, y: top, width: 10, height: tall },
      svg("title", {}, `${plural(n, "frame")} of mean probability ${mean.toFixed(3)}: ${(100 * share).toFixed(1)} % positive`));
    const before = curves.bins[k - 1];
    if (!before || plot.x(mean) - plot.x(before[0]) > 13) plot.text(plot.x(mean), top - 2, "middle", shortCount(n), "count");
  }
  plot.line(curves.bins, `raw ink ink-${head}`);
  plot.dots(curves.bins, `ink ink-${head}`, "circle");
  if (used !== null) plot.rule(used, "run-line");
  plot.rule(at, "here-line");
  return figure("Calibration", el("span", {}, "bars: frames, log scale; ┄ perfect"), plot);
}

function sweepCurve(line, names, labels, point, head, at, used) {
  const plot = new Plot(`Free-running metrics over the threshold`, "θ", "");
  const known = (name) => line.filter((p) => name in p.values).map((p) => [p[head], p.values[name]]);
  if (used !== null) plot.rule(used, "run-line");
  plot.rule(at[head], "here-line");
  names.forEach((name, k) => {
    plot.line(known(name), `raw ink c${k}`);
    plot.dots(known(name), `ink c${k}`, SHAPES[k]);
    if (line.includes(point) && name in point.values) plot.dots([[point[head], point.values[name]]], "ring", "circle", 6.5);
  });
  const fixed = `θ ${head === "speak" ? "of updates" : "of speaking"} ${tickTheta(line[0][otherHead(head)])}`;
  const legend = names.map((name, k) => el("span", { class: `ink c${k}` }, `${"●■▲"[k]} `, el("span", { class: "plain" }, labels[name])));
  const title = el("b", {}, "Sweep", el("small", {}, ` with ${fixed}`));
  return el("figure", { class: "panel" }, el("figcaption", {}, title, ...legend), plot.node);
}
