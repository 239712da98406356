"use strict";
// A small plot with both axes from 0 to 1: lines, dots, bars, rules.

const PLOT = { width: 320, height: 236, left: 36, right: 12, top: 10, bottom: 36 };

class Plot {
  /** `label` says to those who cannot see it what is drawn; `low` is where y begins, above a strip of bars. */
  constructor(label, xName, yName, strip = 0) {
    const { width, height, left, right, top, bottom } = PLOT;
    this.x = (v) => left + v * (width - left - right);
    this.y = (v) => top + (1 - v) * (height - top - bottom - strip);
    this.floor = height - bottom;
    this.node = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "plot" });
    for (const v of [0, 0.25, 0.5, 0.75, 1]) {
      this.add("line", { class: "grid", x1: left, x2: width - right, y1: this.y(v), y2: this.y(v) });
      if (v !== 0.25 && v !== 0.75) this.text(left - 5, this.y(v) + 3.5, "end", String(v));
      this.text(this.x(v), this.floor + 13, "middle", String(v));
    }
    this.text(this.x(1), height - 5, "end", xName);
    this.text(left + 4, top + 10, "start", yName);
  }

  add(tag, props, ...children) {
    const node = svg(tag, props, ...children);
    this.node.append(node);
    return node;
  }

  text(x, y, anchor, content, className = "") {
    return this.add("text", { x, y, "text-anchor": anchor, class: className }, content);
  }

  /** A line through [x, y] points. */
  line(points, className) {
    const d = points.map(([x, y], k) => `${k ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`).join("");
    return this.add("path", { class: className, d });
  }

  /** Signs of one `shape` at [x, y] points: circle, square or triangle. */
  dots(points, className, shape, size = 3) {
    for (const [x, y] of points) this.add("path", { class: className, d: signPath(shape, this.x(x), this.y(y), size) });
  }

  /** A vertical line over the whole height. */
  rule(x, className) {
    return this.add("line", { class: className, x1: this.x(x), x2: this.x(x), y1: PLOT.top, y2: this.floor });
  }
}

function signPath(shape, x, y, r) {
  const p = (dx, dy) => `${(x + dx).toFixed(1)} ${(y + dy).toFixed(1)}`;
  if (shape === "square") return `M${p(-r, -r)}h${2 * r}v${2 * r}h${-2 * r}z`;
  if (shape === "triangle") return `M${p(0, -1.2 * r)}L${p(1.1 * r, 0.9 * r)}L${p(-1.1 * r, 0.9 * r)}z`;
  return `M${p(-r, 0)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
}

const shortCount = (n) => (n < 1000 ? String(n) : n < 10000 ? (n / 1000).toFixed(1) + "k" : n < 1e6 ? Math.round(n / 1000) + "k" : (n / 1e6).toFixed(1) + "M");
