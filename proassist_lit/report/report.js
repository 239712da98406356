"use strict";
// Fills the page: results, the stream that is selected, the run. Last script; starts everything.

function fault(message) {
  byId("fault").hidden = false;
  byId("fault").textContent = "This report could not be drawn completely: " + message;
  document.documentElement.dataset.fault = message;
}
addEventListener("error", (event) => fault(event.message));

const DATA = JSON.parse(byId("data").textContent);

function drawHead() {
  byId("title").textContent = DATA.title;
  byId("key").replaceChildren(...DATA.key.map((k) => el("span", {}, `test ${k.label}`,
    el("span", {}, el("b", {}, score(k.value)), k.baseline ? `vs ${score(k.baselineValue)} ${words(k.baseline)}` : ""))));
  if (!DATA.key.length) byId("key").textContent = "No results on test yet.";
}

function drawScores() {
  const { columns, headline, rest, others, settings } = DATA;
  byId("scores").hidden = !(headline.length || rest.length || others.length || settings.length);
  if (headline.length) byId("headline").append(...scoreTable(columns, headline));
  if (rest.length) byId("rest").append(...scoreTable(columns, rest));
  byId("others").append(...facts(others.map(([key, value]) => [key, typeof value === "string" ? value : score(value)])));
  byId("rest-box").hidden = !(rest.length || others.length);
  byId("rest-box").firstElementChild.textContent = `${plural(rest.length + others.length, "more metric")}`;
  byId("scores-note").textContent = columns.some((c) => c !== "val" && c !== "test") ? "Bold: best of test and its baselines." : "";
  byId("settings").append(...facts(settings));
}

function scoreTable(columns, rows) {
  const kind = (c, i) => (c === "val" || c === "test" ? c : "baseline") + (kinds(i - 1) && !kinds(i) ? " divide" : "");
  const kinds = (i) => columns[i] === "val" || columns[i] === "test";
  const own = columns.filter((c) => c === "val" || c === "test").length;
  const head = el("tr", {}, el("th", { scope: "col" }, "Metric"), ...columns.map((c, i) => el("th", { scope: "col", class: kind(c, i) }, words(c))));
  const groups = own < columns.length
    ? el("tr", {}, el("th", { class: "group" }), own ? el("th", { class: "group", colspan: own }) : null,
      el("th", { class: "group baseline" + (own ? " divide" : ""), colspan: columns.length - own, scope: "colgroup" }, "baselines on test"))
    : null;
  return [
    el("thead", {}, groups, head),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, el("th", { scope: "row", title: row.name }, row.label),
      ...row.values.map((v, i) => el("td", { class: kind(columns[i], i) + (row.best[i] ? " best" : "") }, /(^|_|\/)num_|_count$|invalid/.test(row.name) && v !== null ? v.toLocaleString("en") : score(v)))))),
  ];
}

const words = (name) => name.replaceAll("_", " ");
const facts = (pairs) => pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));

// ---- streams ------------------------------------------------------------------------------

let stream = null, timeline = null, shown = [], current = 0, seen = -1;
const HIDDEN = new Set(); // kinds of rows the reader has switched off; kept from stream to stream

function counts(packed) {
  const count = (list, mark) => list.filter((u) => u[2] === mark).length;
  const matched = count(packed.gen, "matched"), scored = packed.gen.length + packed.ref.length;
  return { matched, mismatched: count(packed.gen, "mismatched"), missed: count(packed.ref, "missed"), redundant: count(packed.gen, "redundant"),
    f1: scored ? (2 * matched) / scored : 1 };
}

function listStreams() {
  const split = byId("split").value;
  shown = DATA.streams.map((packed, index) => ({ packed, index, ...counts(packed) })).filter((s) => !split || s.packed.split === split);
  if (byId("order").value === "worst") shown.sort((a, b) => a.f1 - b.f1);
  byId("pick").replaceChildren(...shown.map((s, k) => el("option", { value: k },
    `${s.packed.id} · ${s.packed.split} · ${s.matched} of ${s.packed.ref.length} matched` +
    (s.mismatched ? `, ${s.mismatched} mismatched` : "") + (s.redundant ? `, ${s.redundant} redundant` : ""))));
}

function select(k, frame) {
  current = clamp(k, 0, shown.length - 1);
  stream = unpackStream(shown[current].packed);
  byId("pick").value = current;
  byId("prev").disabled = current === 0;
  byId("next").disabled = current === shown.length - 1;
  byId("scrubber").max = Math.max(0, stream.n - 1);
  byId("inspector").hidden = byId("timeline").hidden = stream.n === 0;
  byId("film-box").hidden = !stream.film.length;
  byId("about").replaceChildren(
    `${stream.dataset} · ${plural(stream.n, "frame")} at ${stream.fps} fps · ${clock(stream.n / stream.fps)} · stream ${current + 1} of ${shown.length}`,
    stream.rendered ? el("span", { class: "standin" }, " · pictures are stand-ins drawn from the annotations, not the video") : "");
  drawTranscript();
  timeline.at = 0;
  if (stream.n) timeline.show(stream), cursor(frame === undefined ? firstOfInterest() : nearest(stream.time, frame / stream.fps), true);
}

/** Begin where something is said, not at an empty first frame. */
function firstOfInterest() {
  return Math.min(...[...stream.gen, ...stream.ref].map((u) => u.i), stream.n - 1);
}

function cursor(i, reveal) {
  if (i < 0 || (i === seen && !reveal)) return; // the mouse moved within one frame
  seen = i;
  const near = timeline.setCursor(i, reveal);
  byId("scrubber").value = i;
  byId("scrubber").setAttribute("aria-valuetext", `${clock(stream.time[i])}, P(speak) ${stream.speakProb[i]}`);
  if (near >= 0) {
    const [frame, source] = stream.film[near];
    if (byId("film").src !== source) byId("film").src = source;
    byId("film-note").textContent = (stream.rendered ? "stand-in, " : "frame ") + clock(frame / stream.fps);
    byId("film").alt = `Picture at ${clock(frame / stream.fps)}`;
  }
  const frameIdx = stream.frames ? stream.frames[i] : stream.first + i;
  byId("now").replaceChildren(el("b", {}, clock(stream.time[i])), el("span", {}, `frame ${frameIdx}` + (stream.context[i] ? ` · ${stream.context[i].toLocaleString("en")} tokens in context` : "")));
  byId("meters").replaceChildren(
    meter("P(speak)", "speak", stream.speakProb[i], stream.thetaSpeak, stream.speakAt.includes(i) ? "speaks" : "silent", stream.speakAt.includes(i)),
    stream.dstProb ? meter("P(update)", "dst", stream.dstProb[i], stream.thetaDst, stream.dstAt.includes(i) ? "updates" : "keeps", stream.dstAt.includes(i)) : "");
  byId("state-now").textContent = stateNow(i);
  drawSaid(i);
  markRows(i, reveal);
}

function meter(label, kind, p, theta, verdict, on) {
  return el("div", { class: "meter" }, el("span", {}, label),
    el("div", { class: "rail" }, el("div", { class: "fill", style: { width: `${(p || 0) * 100}%`, background: `var(--${kind})` } }),
      el("div", { class: "theta", style: { left: `${theta * 100}%` }, title: `threshold ${theta}` })),
    el("span", { class: "number" }, p === null ? "–" : p.toFixed(3)), el("span", { class: "verdict" + (on ? " on" : "") }, verdict));
}

function stateNow(i) {
  const at = (runs) => runs.reduce((state, [from, code]) => (from <= i ? code : state), -1);
  const list = (all) => {
    const codes = all.map(at);
    const doing = stream.steps.filter((_, k) => codes[k] === 1).map(([id, name]) => `${id} ${name}`);
    return `${codes.filter((c) => c === 2).length} of ${codes.length} done` + (doing.length ? `, now ${doing.join(", ")}` : "");
  };
  if (!stream.steps.length) return "";
  const [gen, ref] = [list(stream.genStates), list(stream.refStates)];
  return gen === ref ? `State: ${gen} (as the reference)` : `State: ${gen}. Reference: ${ref}.`;
}

/** The last words of everyone up to frame i; bright while they are of this moment. */
function drawSaid(i) {
  const last = (list) => list.findLast((u) => u.i <= i);
  byId("said").replaceChildren(...[["User", "user", last(stream.user)], ["Reference", "ref", last(stream.ref)], ["Generated", "gen", last(stream.gen)]]
    .filter(([, , u]) => u)
    .map(([label, who, u]) => el("p", { class: `m-${u.mark}${stream.time[i] - stream.time[u.i] > 3 ? " old" : ""}` },
      el("span", { class: "who" }, `${label} ${clock(stream.time[u.i])}`), el("span", { class: "sign" }, MARKS[u.mark][0] + " "), u.text || "(no words)")));
}

// ---- transcript ---------------------------------------------------------------------------

function drawTranscript() {
  const rows = [];
  const add = (i, order, kind, who, words, mark, note) => rows.push({ i, order, kind, who, words, mark, note });
  for (const u of stream.user) add(u.i, 0, "user", "User", u.text, "user", "");
  for (const [i, text] of stream.refUpdates) add(i, 1, "update ref", "Ref. state", text, "update", "");
  for (const u of stream.ref) add(u.i, 2, "ref", "Reference", u.text, u.mark, u);
  for (const [i, text, invalid] of stream.genUpdates) add(i, 3, "update gen", "State", text || "(nothing readable)", "update", invalid ? `${invalid} invalid` : "");
  for (const u of stream.gen) add(u.i, 4, "gen", "Generated", u.text || "(no words)", u.mark, u);
  for (const [i, name] of stream.events) add(i, 5, "event", "Context", name, "unscored", "");
  rows.sort((a, b) => a.i - b.i || a.order - b.order);

  const kindOf = (row) => (row.kind.startsWith("update") ? "update" : row.kind === "event" ? "event" : row.mark);
  const n = shown[current];
  const chips = [["matched", n.matched], ["mismatched", n.mismatched], ["missed", n.missed], ["redundant", n.redundant],
    ["user", stream.user.length], ["update", stream.genUpdates.length + stream.refUpdates.length]];
  byId("chips").replaceChildren(...chips.filter(([, count]) => count).map(([kind, count]) => el("button", {
    type: "button", class: `m-${kind}`, "aria-pressed": String(!HIDDEN.has(kind)), title: `Show or hide ${kind}`,
    onclick: () => (HIDDEN.has(kind) ? HIDDEN.delete(kind) : HIDDEN.add(kind), drawTranscript(), byId("chips").querySelector(`.m-${kind}`).focus()),
  }, el("span", { class: "sign" }, MARKS[kind]?.[0] ? MARKS[kind][0] + " " : ""),
  kind === "update" ? plural(count, "state update") : kind === "user" ? `${count} from the user` : `${count} ${kind}`)));

  const list = byId("transcript");
  list.replaceChildren(...rows.filter((row) => !HIDDEN.has(kindOf(row))).map((row) => el("li", { class: `${row.kind} m-${row.mark}`, "data-i": row.i, onclick: () => cursor(row.i, true) },
    el("button", { type: "button", "aria-label": `Go to ${clock(stream.time[row.i])}` }, clock(stream.time[row.i])),
    el("span", { class: "who" }, row.who), el("span", { class: "words" }, row.words), markCell(row))));
  if (!list.children.length) list.append(el("p", {}, rows.length ? "Everything is switched off above." : "Nobody says anything in this stream."));
}

function markCell(row) {
  if (typeof row.note === "string") return el("span", { class: "mark" }, row.note);
  return el("span", { class: "mark" }, el("span", { class: "sign" }, MARKS[row.mark][0] + " "), markText(stream, row.kind, row.note));
}

function markRows(i, reveal) {
  let first = null;
  for (const row of byId("transcript").children) {
    const now = Number(row.dataset.i) === i;
    row.classList.toggle("now", now);
    if (now && !first) first = row;
  }
  // Scroll the list only, never the page.
  const list = byId("transcript");
  if (first && reveal) {
    const top = first.offsetTop, view = list.clientHeight;
    if (top < list.scrollTop || top + first.offsetHeight > list.scrollTop + view) list.scrollTop = top - view / 3;
  }
}

function drawLegend() {
  const swatch = (className) => svg("svg", { width: 22, height: 9, "aria-hidden": "true" }, svg("rect", { class: className, x: 0.5, y: 0.5, width: 21, height: 8 }));
  byId("legend").append(
    ...["matched", "mismatched", "missed", "redundant"].map((mark) => el("span", { class: "m-" + mark }, el("b", { class: "sign" }, MARKS[mark][0]), MARKS[mark][1])),
    el("span", {}, svg("svg", { width: 9, height: 9, "aria-hidden": "true" }, svg("circle", { cx: 4.5, cy: 4.5, r: 3, style: { fill: "var(--speak)" } })), "fired"),
    el("span", {}, svg("svg", { width: 9, height: 9, "aria-hidden": "true" }, svg("path", { class: "ref-tick", d: "M4.5 1l3.5 7h-7z" })), "reference fires"),
    el("span", {}, "Steps, predicted over reference:"), el("span", {}, swatch("gen-1"), "in progress"), el("span", {}, swatch("gen-2"), "completed"));
}

function start() {
  drawHead();
  drawScores();
  drawCurves(DATA.curves);
  byId("notes").append(...facts(DATA.notes));
  byId("config").textContent = DATA.config;
  byId("config-box").hidden = !DATA.config;
  byId("run").hidden = !(DATA.notes.length || DATA.config);

  if (DATA.streams.length) {
    byId("streams").hidden = false;
    const splits = [...new Set(DATA.streams.map((s) => s.split))];
    byId("split").append(el("option", { value: "" }, "all"), ...splits.map((split) => el("option", { value: split }, split)));
    byId("split-box").hidden = splits.length < 2;
    timeline = new Timeline(cursor);
    drawLegend();
    listStreams();
    for (const id of ["split", "order"]) byId(id).addEventListener("change", () => (listStreams(), select(0)));
    byId("pick").addEventListener("change", () => select(Number(byId("pick").value)));
    byId("prev").addEventListener("click", () => select(current - 1));
    byId("next").addEventListener("click", () => select(current + 1));
    byId("scrubber").addEventListener("input", () => cursor(Number(byId("scrubber").value), true));
    byId("zoom-in").addEventListener("click", () => timeline.setZoom(timeline.zoom * 2));
    byId("zoom-out").addEventListener("click", () => timeline.setZoom(timeline.zoom / 2));
    byId("zoom-fit").addEventListener("click", () => timeline.setZoom(1));
    // report.html#stream=3&frame=40 opens there, for links from notes and issues.
    const asked = new URLSearchParams(location.hash.slice(1));
    select(Number(asked.get("stream")) || 0, asked.has("frame") ? Number(asked.get("frame")) || 0 : undefined);
  }
  document.documentElement.dataset.ready = "1";
}
start();
