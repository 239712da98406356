"use strict";
// Chooses a stream and plays it: one frame under the cursor, by scrubbing, by keys, or in time.

const SPEEDS = [1, 4]; // times real time

class Player {
  constructor(streams) {
    this.streams = streams;
    this.current = 0;
    this.seen = -1;
    this.speed = SPEEDS[0];
    this.playing = null; // { at, begin }: the frame that was shown at that moment
    this.timeline = new Timeline((i, reveal) => (reveal || !this.playing) && this.cursor(i, reveal));
    this.dialogue = new Dialogue((i) => this.cursor(i, true));
    const splits = [...new Set(streams.map((s) => s.split))];
    byId("split").append(el("option", { value: "" }, "all"), ...splits.map((split) => el("option", { value: split }, split)));
    byId("split-box").hidden = splits.length < 2;
    this.list();
    const on = (id, type, act) => byId(id).addEventListener(type, act);
    for (const id of ["split", "order"]) on(id, "change", () => (this.list(), this.select(0)));
    on("pick", "change", () => this.select(Number(byId("pick").value)));
    on("prev", "click", () => this.select(this.current - 1));
    on("next", "click", () => this.select(this.current + 1));
    on("scrubber", "input", () => this.cursor(Number(byId("scrubber").value), true));
    on("zoom-in", "click", () => this.timeline.setZoom(this.timeline.zoom * 2));
    on("zoom-out", "click", () => this.timeline.setZoom(this.timeline.zoom / 2));
    on("zoom-fit", "click", () => this.timeline.setZoom(1));
    on("play", "click", () => this.toggle());
    on("speed", "click", () => this.setSpeed(SPEEDS[(SPEEDS.indexOf(this.speed) + 1) % SPEEDS.length]));
    addEventListener("keydown", (event) => this.key(event));
  }

  list() {
    const split = byId("split").value;
    this.shown = this.streams.map((packed, index) => ({ packed, index, ...counts(packed) })).filter((s) => !split || s.packed.split === split);
    if (byId("order").value === "worst") this.shown.sort((a, b) => a.f1 - b.f1);
    byId("pick").replaceChildren(...this.shown.map((s, k) => el("option", { value: k },
      `${s.packed.id} · ${s.packed.split} · ${s.matched} of ${s.packed.ref.length} matched` +
      (s.mismatched ? `, ${s.mismatched} mismatched` : "") + (s.redundant ? `, ${s.redundant} redundant` : ""))));
  }

  /** Show stream number `index` of the report at its `i`-th frame, whatever is filtered now. */
  open(index, i) {
    if (!this.shown.some((s) => s.index === index)) byId("split").value = "", this.list();
    this.select(this.shown.findIndex((s) => s.index === index), i);
    byId("streams").scrollIntoView({ block: "start" });
    byId("scrubber").focus({ preventScroll: true });
  }

  select(k, i) {
    this.stop();
    this.current = clamp(k, 0, this.shown.length - 1);
    const stream = (this.stream = unpackStream(this.shown[this.current].packed));
    byId("pick").value = this.current;
    byId("prev").disabled = this.current === 0;
    byId("next").disabled = this.current === this.shown.length - 1;
    byId("scrubber").max = Math.max(0, stream.n - 1);
    byId("inspector").hidden = byId("timeline").hidden = stream.n === 0;
    byId("film-box").hidden = !stream.film.length;
    byId("board").hidden = !stream.steps.length;
    byId("about").replaceChildren(
      `${stream.dataset} · ${plural(stream.n, "frame")} at ${stream.fps} fps · ${clock(stream.n / stream.fps)} · stream ${this.current + 1} of ${this.shown.length}`,
      stream.rendered ? el("span", { class: "standin" }, " · pictures are stand-ins drawn from the annotations, not the video") : "");
    this.dialogue.show(stream);
    this.timeline.at = 0;
    if (!stream.n) return;
    this.timeline.show(stream);
    // Begin where something is said, not at an empty first frame.
    this.cursor(i === undefined ? Math.min(...[...stream.gen, ...stream.ref].map((u) => u.i), stream.n - 1) : clamp(i, 0, stream.n - 1), true);
  }

  cursor(i, reveal) {
    if (i < 0 || (i === this.seen && !reveal)) return; // the mouse moved within one frame
    const stream = this.stream, speaks = stream.speakAt.includes(i), updates = stream.dstAt.includes(i);
    this.seen = i;
    if (this.playing && i !== this.playing.last) this.playing = { ...this.playing, at: i, begin: null, last: i };
    const near = this.timeline.setCursor(i, reveal);
    byId("scrubber").value = i;
    byId("scrubber").setAttribute("aria-valuetext", `${clock(stream.time[i])}, P(speak) ${stream.speakProb[i]}`);
    if (near >= 0) this.drawFilm(stream.film[near]);
    const frameIdx = stream.frames ? stream.frames[i] : stream.first + i, event = stream.events.find(([at]) => at === i);
    byId("now").replaceChildren(el("b", {}, clock(stream.time[i])), el("span", {}, `frame ${frameIdx}` +
      (stream.context[i] ? ` · ${stream.context[i].toLocaleString("en")} tokens in context` : "")), event ? el("span", { class: "event" }, ` ◆ ${event[1]}`) : "");
    byId("meters").replaceChildren(
      meter("P(speak)", "speak", stream.speakProb[i], stream.thetaSpeak, speaks ? "speaks" : "silent", speaks),
      stream.dstProb ? meter("P(update)", "dst", stream.dstProb[i], stream.thetaDst, updates ? "updates" : "keeps", updates) : "");
    this.drawBoard(i);
    this.drawSaid(i);
    this.dialogue.mark(i, reveal);
  }

  drawBoard(i) {
    byId("state-table").replaceChildren(...stateBoard(this.stream, i));
    const box = byId("board"), row = box.querySelector(".differs") || box.querySelector(".doing");
    if (!row || box.scrollHeight <= box.clientHeight) return;
    // Keep what happens in sight, below the heading that stays.
    const head = row.closest("table").tHead.offsetHeight, top = row.offsetTop, low = top + row.offsetHeight;
    if (top < box.scrollTop + head) box.scrollTop = top - head;
    else if (low > box.scrollTop + box.clientHeight) box.scrollTop = low - box.clientHeight;
  }

  drawFilm([frame, source]) {
    if (byId("film").src !== source) byId("film").src = source;
    byId("film-note").textContent = (this.stream.rendered ? "stand-in, " : "frame ") + clock(frame / this.stream.fps);
    byId("film").alt = `Picture at ${clock(frame / this.stream.fps)}`;
  }

  /** The last words of both dialogues up to frame i; bright while they are of this moment. */
  drawSaid(i) {
    const { stream } = this, last = (list) => list.findLast((u) => u.i <= i);
    byId("said").replaceChildren(...[["User", "user", stream.user], ["Reference", "ref", stream.ref], ["Generated", "gen", stream.gen]]
      .filter(([, , list]) => list.length).map(([label, who, list]) => {
        const u = last(list);
        return el("div", { class: `side ${who}` }, el("p", { class: "who" }, label, u ? ` ${clock(stream.time[u.i])} ` : " ", el("span", { class: u ? `m-${u.mark}` : "" },
          u && who !== "user" ? el("span", { class: "sign" }, `${MARKS[u.mark][0]} ${markText(stream, who, u)}`) : "")),
        el("p", { class: u && stream.time[i] - stream.time[u.i] <= 3 ? "fresh" : "old" }, u ? u.text || "(no words)" : "nothing yet"));
      }));
  }

  // ---- in time ----------------------------------------------------------------------------

  toggle() {
    if (this.playing) return this.stop();
    const at = this.seen >= this.stream.n - 1 ? 0 : this.seen; // from the end: once more
    this.playing = { at, begin: null, last: at };
    this.cursor(at, true);
    this.drawPlaying();
    requestAnimationFrame((now) => this.tick(now));
  }

  tick(now) {
    if (!this.playing) return;
    const { stream, playing } = this;
    playing.begin ??= now;
    const time = stream.time[playing.at] + ((now - playing.begin) / 1000) * this.speed + 1e-6;
    let i = playing.last;
    while (i + 1 < stream.n && stream.time[i + 1] <= time) i++;
    if (i !== playing.last) playing.last = i, this.cursor(i, true);
    if (i >= stream.n - 1) this.stop(); else requestAnimationFrame((next) => this.tick(next));
  }

  stop() {
    this.playing = null;
    this.drawPlaying();
  }

  setSpeed(speed) {
    this.speed = speed;
    if (this.playing) this.playing = { at: this.seen, begin: null, last: this.seen };
    this.drawPlaying();
  }

  drawPlaying() {
    byId("play").textContent = this.playing ? "❚❚ Pause" : "▶ Play";
    byId("play").setAttribute("aria-pressed", String(Boolean(this.playing)));
    byId("speed").textContent = `${this.speed}×`;
    byId("speed").setAttribute("aria-label", `Speed ${this.speed} times real time`);
  }

  /** Left and right: frame by frame. Space: play. While the player is in sight, or has the focus. */
  key(event) {
    const node = event.target, box = byId("inspector").getBoundingClientRect();
    const inSight = box.height > 0 && box.top < innerHeight && box.bottom > 0;
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || !this.stream?.n) return;
    if (!byId("streams").contains(node) && !(node === document.body && inSight)) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === " " && !node.matches("button, select, summary")) event.preventDefault(), this.toggle();
    else if (step && !node.matches("input, select")) event.preventDefault(), this.cursor(clamp(this.seen + step, 0, this.stream.n - 1), true);
  }
}

function counts(packed) {
  const count = (list, mark) => list.filter((u) => u[2] === mark).length;
  const matched = count(packed.gen, "matched"), scored = packed.gen.length + packed.ref.length;
  return { matched, mismatched: count(packed.gen, "mismatched"), missed: count(packed.ref, "missed"), redundant: count(packed.gen, "redundant"),
    f1: scored ? (2 * matched) / scored : 1 };
}

function meter(label, kind, p, theta, verdict, on) {
  return el("div", { class: "meter" }, el("span", {}, label),
    el("div", { class: "rail" }, el("div", { class: "fill", style: { width: `${(p || 0) * 100}%`, background: `var(--${kind})` } }),
      theta === null ? "" : el("div", { class: "theta", style: { left: `${theta * 100}%` }, title: `threshold ${theta}` })),
    el("span", { class: "number" }, p === null ? "–" : p.toFixed(3)), el("span", { class: "verdict" + (on ? " on" : "") }, verdict));
}

function drawLegend() {
  const swatch = (className) => svg("svg", { width: 22, height: 9, "aria-hidden": "true" }, svg("rect", { class: className, x: 0.5, y: 0.5, width: 21, height: 8 }));
  byId("legend").append(
    ...["matched", "mismatched", "missed", "redundant"].map((mark) => el("span", { class: "m-" + mark }, el("b", { class: "sign" }, MARKS[mark][0]), MARKS[mark][1])),
    el("span", {}, svg("svg", { width: 9, height: 9, "aria-hidden": "true" }, svg("circle", { cx: 4.5, cy: 4.5, r: 3, style: { fill: "var(--speak)" } })), "fired"),
    el("span", {}, svg("svg", { width: 9, height: 9, "aria-hidden": "true" }, svg("path", { class: "ref-tick", d: "M4.5 1l3.5 7h-7z" })), "reference fires"),
    el("span", {}, svg("svg", { width: 9, height: 11, "aria-hidden": "true" }, svg("path", { class: "refresh", d: "M4.5 .5l4 5l-4 5l-4 -5z" })), "context refreshed"),
    el("span", {}, "Steps, predicted over reference:"), el("span", {}, swatch("gen-1"), "in progress"), el("span", {}, swatch("gen-2"), "completed"),
    el("span", {}, el("kbd", {}, "←"), el("kbd", {}, "→"), "frame by frame"), el("span", {}, el("kbd", {}, "Space"), "play"));
}
