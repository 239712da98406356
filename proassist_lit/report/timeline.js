"use strict";
// One stream over time: film, probabilities, lanes of words, bands of step states, one cursor.

const MARKS = {
  matched: ["✓", "matched"],
  mismatched: ["≈", "mismatched"],
  missed: ["○", "missed"],
  redundant: ["×", "redundant"],
  unscored: ["·", "not scored"],
  user: ["", "user"],
};
const FILM_SIZE = 56;
const STATES = ["not started", "in progress", "completed"];

/** Unpack what the page holds of one stream; adds `time` (s), `context` and look-ups by frame. */
function unpackStream(packed) {
  const time = Float64Array.from({ length: packed.n }, (_, i) => (packed.frames ? packed.frames[i] : packed.first + i) / packed.fps);
  let total = 0;
  const utterance = ([i, text, mark, partner, semantic]) => ({ i, text, mark, partner, semantic });
  return {
    ...packed, time,
    context: packed.contextSteps.map((change) => (total += change)),
    gen: packed.gen.map(utterance),
    ref: packed.ref.map(utterance),
    user: packed.user.map(([i, text]) => ({ i, text, mark: "user", partner: -1, semantic: null })),
    filmTime: packed.film.map(([frame]) => frame / packed.fps),
  };
}

/** How late (s) the generated one of a matched pair is; null without a partner. */
function lateness(stream, who, u) {
  if (u.partner < 0) return null;
  return (stream.time[u.i] - stream.time[u.partner]) * (who === "gen" ? 1 : -1);
}

function lateText(late) {
  if (Math.abs(late) < 1e-9) return "on time";
  return `${Math.abs(late).toFixed(1)} s ${late > 0 ? "late" : "early"}`;
}

function markText(stream, who, u) {
  const late = lateness(stream, who, u);
  return late === null ? MARKS[u.mark][1] : `${MARKS[u.mark][1]} ${score(u.semantic).replace(/0$/, "")}, ${lateText(late)}`;
}

class Timeline {
  constructor(onCursor) {
    this.onCursor = onCursor;
    this.zoom = 1;
    this.lanes = byId("lanes");
    this.scroller = byId("scroller");
    this.lanes.addEventListener("pointermove", (event) => this.point(event));
    this.lanes.addEventListener("pointerdown", (event) => this.point(event));
    this.scroller.addEventListener("scroll", followTip);
    addEventListener("scroll", followTip, { passive: true });
    new ResizeObserver(() => this.stream && this.scroller.clientWidth !== this.drawnFor && this.draw()).observe(this.scroller);
  }

  show(stream) {
    this.stream = stream;
    this.zoom = 1;
    this.scroller.scrollLeft = 0;
    this.draw();
  }

  setZoom(zoom) {
    this.zoom = clamp(zoom, 1, 32);
    this.draw();
    this.scroller.scrollLeft = this.x(this.stream.time[this.at]) - this.scroller.clientWidth / 2;
  }

  point(event) {
    const px = event.clientX - this.lanes.getBoundingClientRect().left;
    this.onCursor(nearest(this.stream.time, this.start + (px - this.pad) / this.pxPerSecond));
  }

  setCursor(i, reveal) {
    this.at = i;
    const x = this.x(this.stream.time[i]);
    this.cursor.style.left = x + "px";
    const near = nearest(this.stream.filmTime, this.stream.time[i]);
    for (const picture of this.film) picture.classList.toggle("near", Number(picture.dataset.k) === near);
    const left = this.scroller.scrollLeft, view = this.scroller.clientWidth;
    if (reveal && (x < left + 20 || x > left + view - 60)) this.scroller.scrollLeft = x - view / 3;
    return near;
  }

  x(seconds) {
    return this.pad + (seconds - this.start) * this.pxPerSecond;
  }

  draw() {
    const s = this.stream;
    hideTip();
    this.drawnFor = this.scroller.clientWidth;
    this.pad = 8;
    this.start = s.n ? s.time[0] : 0;
    const length = s.n ? s.time[s.n - 1] - this.start + 1 / s.fps : 1;
    this.width = Math.round(Math.max(this.drawnFor, 640) * this.zoom);
    this.pxPerSecond = (this.width - 2 * this.pad) / length;
    this.end = this.start + length;
    this.film = [];
    this.lanes.replaceChildren(hatches());
    byId("gutter").replaceChildren();
    this.lanes.style.width = this.width + "px";

    this.drawAxis();
    if (s.film.length) this.drawFilm();
    this.drawProbs("P(speak)", "speak", s.speakProb, s.thetaSpeak, s.speakAt, s.ref.map((u) => u.i), 78);
    if (s.dstProb) this.drawProbs("P(update)", "dst", s.dstProb, s.thetaDst, s.dstAt, s.refUpdates.map((u) => u[0]), 62);
    if (s.user.length) this.drawWords("User", "user", s.user, 19, 1);
    this.drawWords("Reference", "ref", s.ref, 36, 2);
    this.drawLinks();
    this.drawWords("Generated", "gen", s.gen, 36, 2);
    if (s.n) drawContext(this);
    s.steps.forEach((step, k) => this.drawStep(step, s.genStates[k], s.refStates[k]));
    this.cursor = el("div", { id: "cursor" });
    this.lanes.append(this.cursor);
    if (s.n) this.setCursor(clamp(this.at || 0, 0, s.n - 1), false);
  }

  lane(label, height, className = "") {
    byId("gutter").append(el("div", { style: { height: height + "px" } }, ...label));
    const lane = el("div", { class: "lane " + className, style: { height: height + "px" } });
    this.lanes.append(lane);
    return lane;
  }

  sheet(lane, height) {
    const sheet = svg("svg", { width: this.width, height, "aria-hidden": "true" });
    lane.append(sheet);
    return sheet;
  }

  drawAxis() {
    const sheet = this.sheet(this.lane(["Time"], 18, "axis"), 18);
    const every = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((d) => d * this.pxPerSecond >= 64) || 7200;
    for (let k = Math.ceil(this.start / every); k * every <= this.end; k++) {
      const x = this.x(k * every);
      sheet.append(svg("line", { class: "grid", x1: x, x2: x, y1: 14, y2: 4000 }));
      if (x < this.width - 34) sheet.append(svg("text", { x: x + 3, y: 11 }, clock(k * every, every < 1 ? 1 : 0)));
    }
    for (const [i, name] of this.stream.events) {
      const x = this.x(this.stream.time[i]);
      sheet.append(svg("line", { class: "event-line", x1: x, x2: x, y1: 4, y2: 4000 }));
      sheet.append(svg("text", { class: "event", x: x - 4, y: 11 }, "◆", svg("title", {}, `${clock(this.stream.time[i])} context: ${name}`)));
    }
  }

  drawFilm() {
    const lane = this.lane([el("b", {}, "Film"), el("br"), this.stream.rendered ? "stand-in" : "video"], FILM_SIZE);
    let free = -Infinity;
    this.stream.film.forEach(([, source], k) => {
      const x = this.x(this.stream.filmTime[k]);
      if (x < free || x + FILM_SIZE > this.width + 4) return; // no room: the cursor still finds it
      free = x + FILM_SIZE + 1;
      const picture = el("img", { src: source, alt: "", width: FILM_SIZE, height: FILM_SIZE, "data-k": k, draggable: "false", style: { left: x + "px" } });
      this.film.push(picture);
      lane.append(picture);
    });
  }

  drawProbs(label, kind, probs, theta, fired, wanted, height) {
    const floor = height - 9, y = (p) => 3 + (1 - p) * (floor - 3);
    const tick = (p, text) => el("span", { class: "tick", style: { top: y(p) + "px" } }, text);
    const lane = this.lane([el("b", { style: { color: `var(--${kind})` } }, label), el("br"), theta === null ? "by a rule" : `θ = ${theta}`, tick(0.94, "1"), tick(0.06, "0")], height);
    const sheet = this.sheet(lane, height), times = this.stream.time;
    for (const p of [0, 1]) sheet.append(svg("line", { class: "grid", x1: 0, x2: this.width, y1: y(p), y2: y(p) }));
    let d = "", pen = "M";
    probs.forEach((p, i) => {
      if (p === null) return void (pen = "M");
      d += pen + this.x(times[i]).toFixed(1) + " " + y(p).toFixed(1), pen = "L";
    });
    sheet.append(svg("path", { class: "prob", d, style: { stroke: `var(--${kind})` } }));
    if (theta !== null) sheet.append(svg("line", { class: "theta-line", x1: 0, x2: this.width, y1: y(theta), y2: y(theta) }));
    for (const i of wanted) {
      const x = this.x(times[i]);
      sheet.append(svg("path", { class: "ref-tick", d: `M${x} ${floor + 2}l3.5 6h-7z` }));
    }
    for (const i of fired) {
      if (probs[i] !== null) sheet.append(svg("circle", { class: "fired", cx: this.x(times[i]), cy: y(probs[i]), r: 3, style: { fill: `var(--${kind})` } }));
    }
  }

  drawWords(label, who, list, height, rows) {
    const lane = this.lane([el("b", {}, label)], height, "plain");
    lane.setAttribute("role", "group");
    lane.setAttribute("aria-label", label + " utterances; arrow keys go from one to the next");
    lane.dataset.who = who;
    const times = this.stream.time;
    list.forEach((u, k) => {
      const x = this.x(times[u.i]);
      const next = k + 1 < list.length ? this.x(times[list[k + 1].i]) : this.width;
      const width = clamp(next - x - 1.5, 3, Math.max(46, 26 + (u.text.length * 6.6) / rows));
      const thin = width < 22;
      const pill = el("button", {
        type: "button", class: `pill m-${u.mark}${thin ? " thin" : ""}${u.mark === "missed" ? " missed-pill" : ""}`,
        tabindex: k ? -1 : 0, "data-i": u.i, "data-k": k,
        "aria-label": `${label} ${clock(times[u.i])}, ${who === "user" ? "" : markText(this.stream, who, u) + ": "}${u.text || "no words"}`,
        style: { left: x + "px", width: width + "px", "--rows": rows },
        onpointerenter: () => showTip(pill, this.stream, label, who, u),
        onpointerleave: hideTip,
        onfocus: () => (this.onCursor(u.i, pill.matches(":focus-visible")), showTip(pill, this.stream, label, who, u)),
        onblur: hideTip,
        onclick: () => this.onCursor(u.i, true),
      }, thin ? "" : el("span", {}, MARKS[u.mark][0] ? el("i", {}, MARKS[u.mark][0]) : "", u.text || "(no words)"));
      lane.append(pill);
    });
    lane.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (event.key === "Escape") hideTip();
      if (to === undefined || !event.target.dataset.k) return;
      event.preventDefault();
      const pills = lane.querySelectorAll(".pill");
      const pill = pills[clamp(Number(event.target.dataset.k) + to, 0, pills.length - 1)];
      event.target.tabIndex = -1;
      pill.tabIndex = 0;
      pill.focus();
    });
  }

  drawLinks() {
    const height = 14, sheet = this.sheet(this.lane([], height, "links"), height);
    for (const u of this.stream.gen) {
      if (u.partner < 0) continue;
      const from = this.x(this.stream.time[u.partner]) + 1.5, to = this.x(this.stream.time[u.i]) + 1.5;
      sheet.append(svg("line", { class: `m-${u.mark} ${u.mark === "matched" ? "link" : "link-cross"}`, x1: from, x2: to, y1: -5, y2: height + 5 }));
    }
  }

  drawStep([id, name], gen, ref) {
    const height = 17, lane = this.lane([], height);
    const label = byId("gutter").lastElementChild;
    label.className = "step";
    label.title = `${id} ${name}`;
    label.append(el("b", {}, id), " " + name);
    const sheet = this.sheet(lane, height);
    const edges = (runs, k) => [this.x(this.stream.time[runs[k][0]]), k + 1 < runs.length ? this.x(this.stream.time[runs[k + 1][0]]) : this.x(this.end)];
    for (const [who, title, runs, top, thick] of [["gen", "predicted", gen, 1, 9], ["ref", "reference", ref, 11, 5]]) {
      sheet.append(svg("rect", { class: "band-track", x: this.pad, y: top, width: this.width - 2 * this.pad, height: thick }));
      runs.forEach(([, state], k) => {
        if (state < 1) return;
        const [from, to] = edges(runs, k);
        sheet.append(svg("rect", { class: `${who}-${state}`, x: from, y: top, width: Math.max(1, to - from), height: thick },
          svg("title", {}, `${id} ${name}: ${title} ${STATES[state]} from ${clock(this.stream.time[runs[k][0]])}`)));
      });
    }
  }
}

function hatches() {
  const pattern = (id) => svg("pattern", { id: "hatch-" + id, width: 4, height: 4, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("line", { class: "hatch-" + id, x1: 0, x2: 0, y1: 0, y2: 4, "stroke-width": 2.4 }));
  return svg("svg", { width: 0, height: 0, style: { position: "absolute" }, "aria-hidden": "true" }, svg("defs", {}, pattern("gen"), pattern("ref")));
}

function showTip(pill, stream, label, who, u) {
  const tip = byId("tip"), partner = who === "gen" ? stream.ref.find((r) => r.i === u.partner) : who === "ref" ? stream.gen.find((g) => g.i === u.partner) : null;
  tip.replaceChildren(
    el("p", { class: "head" }, `${label} ${clock(stream.time[u.i])}${who === "user" ? "" : ` ${MARKS[u.mark][0]} ${markText(stream, who, u)}`}`),
    el("p", {}, u.text || "(no words)"),
  );
  if (partner) tip.append(el("p", { class: "head" }, `${who === "gen" ? "Reference" : "Generated"} ${clock(stream.time[partner.i])}: ${partner.text}`));
  tip.hidden = false;
  const box = pill.getBoundingClientRect(), size = tip.getBoundingClientRect();
  const above = box.top - size.height - 8, below = box.bottom + 8;
  const fits = below + size.height < innerHeight - 4; // generated words: below, so that the reference stays in sight
  tip.style.left = clamp(box.left, 8, Math.max(8, innerWidth - size.width - 8)) + "px";
  tip.style.top = (above > 4 && !(who === "gen" && fits) ? above : below) + "px";
}

/** While the lanes scroll, the words of the focused one stay beside it; others go. */
function followTip() {
  hideTip();
  if (document.activeElement.matches(".pill:focus-visible")) document.activeElement.dispatchEvent(new PointerEvent("pointerenter"));
}

function hideTip() {
  byId("tip").hidden = true;
}
