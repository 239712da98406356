"use strict";
// One list of everything that went wrong in all streams: filter, sort, search, jump to the frame.

const ERROR_KINDS = {
  missed: ["○", "missed"], redundant: ["×", "redundant"], mismatched: ["≈", "mismatched"],
  late: ["▸", "late"], early: ["◂", "early"], state: ["≠", "wrong state"],
};
const ERRORS_AT_ONCE = 100; // rows that are drawn; more follow when the list is scrolled to its end

/** Every error of one stream; late and early ones are matched pairs that differ by more than `limit` s. */
function streamErrors(packed, index, limit) {
  const at = (i) => (packed.frames ? packed.frames[i] : packed.first + i) / packed.fps;
  const found = [], ref = new Map(packed.ref.map((u) => [u[0], u]));
  const add = (kind, i, refText, genText, score, how, size) =>
    found.push({ kind, index, i, time: at(i), ref: refText, gen: genText, score, how, size });
  for (const [i, text, mark] of packed.ref) if (mark === "missed") add("missed", i, text, "", null, "", 0);
  for (const [i, text, mark, partner, semantic] of packed.gen) {
    const wanted = partner < 0 ? "" : ref.get(partner)?.[1] || "", words = text || "(no words)";
    if (mark === "redundant") add("redundant", i, "", words, null, "", 0);
    if (partner < 0) continue;
    const late = at(i) - at(partner), how = lateText(late);
    if (mark === "mismatched") add("mismatched", i, wanted, words, semantic, how, Math.abs(late));
    if (mark === "matched" && Math.abs(late) > limit + 1e-9) add(late > 0 ? "late" : "early", i, wanted, words, semantic, how, Math.abs(late));
  }
  packed.steps.forEach(([id, name], k) => {
    for (const { from, to, pairs } of wrongStretches(packed.genStates[k], packed.refStates[k], packed.n)) {
      const lasts = at(to - 1) - at(from) + 1 / packed.fps, states = (side) => [...new Set(pairs.map((pair) => stateName(pair[side])))].join(", then ");
      add("state", from, `${id} ${name}: ${states(1)}`, `${id}: ${states(0)}`, null, `for ${lasts.toFixed(1)} s`, lasts);
    }
  });
  return found.sort((a, b) => a.i - b.i);
}

class ErrorBrowser {
  /** `onJump(index, i)` is called with a stream's number and a position in it. */
  constructor(streams, onJump) {
    this.streams = streams;
    this.onJump = onJump;
    this.off = new Set();
    this.box = byId("error-list");
    const splits = [...new Set(streams.map((s) => s.split))], again = () => this.filter();
    byId("error-split").append(el("option", { value: "" }, "all"), ...splits.map((split) => el("option", { value: split }, split)));
    byId("error-split-box").hidden = splits.length < 2;
    byId("error-split").addEventListener("change", () => (this.listStreams(), this.filter()));
    byId("error-stream").addEventListener("change", again);
    byId("error-order").addEventListener("change", again);
    byId("error-search").addEventListener("input", again);
    byId("late-limit").addEventListener("input", () => byId("late-limit").validity.valid && byId("late-limit").value !== "" && (this.gather(), this.filter()));
    this.box.addEventListener("scroll", () => this.box.scrollTop + this.box.clientHeight > this.box.scrollHeight - 400 && this.more());
    this.box.addEventListener("click", (event) => this.jump(event.target.closest("li")));
    this.box.addEventListener("keydown", (event) => this.key(event));
    byId("errors").hidden = false;
    this.listStreams();
    this.gather();
    this.filter();
  }

  listStreams() {
    const split = byId("error-split").value;
    byId("error-stream").replaceChildren(el("option", { value: "" }, "all"),
      ...this.streams.flatMap((s, index) => (!split || s.split === split ? [el("option", { value: index }, s.id)] : [])));
  }

  gather() {
    const limit = byId("late-limit").valueAsNumber;
    this.all = this.streams.flatMap((packed, index) => streamErrors(packed, index, limit));
  }

  filter() {
    const split = byId("error-split").value, stream = byId("error-stream").value, words = byId("error-search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const holds = (e) => {
      e.find ??= `${e.ref} ${e.gen} ${this.streams[e.index].id}`.toLowerCase();
      return words.every((word) => e.find.includes(word));
    };
    const found = this.all.filter((e) => (!split || this.streams[e.index].split === split) && (stream === "" || e.index === Number(stream)) && holds(e));
    this.drawChips(found);
    this.seen = found.filter((e) => !this.off.has(e.kind));
    const rank = (e) => (e.score === null ? Infinity : e.score), order = byId("error-order").value;
    if (order === "score") this.seen.sort((a, b) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b)));
    if (order === "size") this.seen.sort((a, b) => b.size - a.size);
    this.box.replaceChildren();
    this.box.scrollTop = 0;
    this.more();
    if (this.box.firstElementChild) this.box.firstElementChild.tabIndex = 0;
    else this.box.append(el("li", { class: "none" }, this.all.length ? "Nothing is left of the list with these filters." : "Not one error in the streams of this report."));
    byId("error-count").textContent = `${this.seen.length.toLocaleString("en")} of ${plural(this.all.length, "error").replace(/^\d+/, (n) => Number(n).toLocaleString("en"))} in ${plural(this.streams.length, "stream")}`;
  }

  drawChips(found) {
    const count = (kind) => found.filter((e) => e.kind === kind).length;
    const toggle = (kind) => {
      if (!this.off.delete(kind)) this.off.add(kind);
      this.filter();
      byId("error-chips").querySelector(`[data-kind=${kind}]`).focus();
    };
    byId("error-chips").replaceChildren(...Object.entries(ERROR_KINDS).filter(([kind]) => this.all.some((e) => e.kind === kind)).map(([kind, [sign, name]]) =>
      el("button", { type: "button", class: `m-${kind}`, "data-kind": kind, "aria-pressed": String(!this.off.has(kind)), title: `Show or hide ${name}`, onclick: () => toggle(kind) },
        el("span", { class: "sign" }, sign + " "), `${name} ${count(kind).toLocaleString("en")}`)));
  }

  /** Draw the next rows. */
  more() {
    const drawn = this.box.querySelectorAll("li:not(.none)").length;
    this.box.append(...this.seen.slice(drawn, drawn + ERRORS_AT_ONCE).map((e, k) => this.line(e, drawn + k)));
  }

  line(e, k) {
    const [sign, name] = ERROR_KINDS[e.kind], id = this.streams[e.index].id;
    const side = (label, text, who) => el("span", { class: `words ${who}` }, text ? el("span", { class: "who" }, label + " ") : "", text);
    return el("li", { class: `m-${e.kind}`, tabindex: -1, "data-k": k, "aria-label": `${name}, ${id} at ${clock(e.time)}${e.ref ? `, reference: ${e.ref}` : ""}${e.gen ? `, generated: ${e.gen}` : ""}. Enter opens the stream there.` },
      el("span", { class: "kind" }, el("span", { class: "sign" }, sign + " "), name),
      el("span", { class: "place" }, el("b", {}, clock(e.time)), el("span", { class: "id", title: id }, id)),
      side("Reference", e.ref, "ref"), side(e.kind === "state" ? "Predicted" : "Generated", e.gen, "gen"),
      el("span", { class: "mark" }, e.score === null ? "" : el("b", {}, score(e.score).replace(/0$/, "")), e.score === null ? "" : " ", e.how));
  }

  jump(row) {
    if (!row || row.dataset.k === undefined) return;
    const { index, i } = this.seen[Number(row.dataset.k)];
    this.onJump(index, i);
  }

  /** Arrow keys go through the list, Enter opens. */
  key(event) {
    const row = event.target.closest("li[data-k]"), to = { ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
    if (!row) return;
    if (event.key === "Enter") return event.preventDefault(), this.jump(row);
    if (to === undefined) return;
    event.preventDefault();
    const k = clamp(Number(row.dataset.k) + to, 0, this.seen.length - 1);
    while (k >= this.box.children.length) this.more();
    row.tabIndex = -1;
    this.box.children[k].tabIndex = 0;
    this.box.children[k].focus();
  }
}
