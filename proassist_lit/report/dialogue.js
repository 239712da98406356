"use strict";
// Both dialogues of the stream side by side: reference left, generated right, pairs on one line.

const HIDDEN = new Set(); // kinds of rows the reader has switched off; kept from stream to stream

class Dialogue {
  /** `onPick(i)` is called when the reader chooses a frame. */
  constructor(onPick) {
    this.onPick = onPick;
    this.list = byId("transcript");
  }

  show(stream) {
    this.stream = stream;
    const rows = dialogueRows(stream);
    this.drawChips(rows);
    const seen = rows.filter((row) => !HIDDEN.has(row.kind));
    this.items = seen.map((row) => ({ row, node: this.line(row) }));
    this.list.replaceChildren(...this.items.map((item) => item.node));
    if (!seen.length) this.list.append(el("li", { class: "none" }, rows.length ? "Everything is switched off above." : "Nobody says anything in this stream."));
  }

  drawChips(rows) {
    const say = { user: (n) => `${n} from the user`, update: (n) => plural(n, "state update"), event: (n) => plural(n, "context refresh").replace(/hs$/, "hes") };
    const kinds = ["matched", "mismatched", "missed", "redundant", "unscored", "user", "update", "event"];
    const counts = kinds.map((kind) => [kind, rows.filter((row) => row.kind === kind).reduce((n, row) => n + row.count, 0)]);
    byId("chips").replaceChildren(...counts.filter(([, count]) => count).map(([kind, count]) => el("button", {
      type: "button", class: `m-${kind}`, "aria-pressed": String(!HIDDEN.has(kind)), title: `Show or hide ${kind}`,
      onclick: () => (HIDDEN.has(kind) ? HIDDEN.delete(kind) : HIDDEN.add(kind), this.show(this.stream), byId("chips").querySelector(`.m-${kind}`).focus()),
    }, el("span", { class: "sign" }, MARKS[kind]?.[0] ? MARKS[kind][0] + " " : ""), say[kind] ? say[kind](count) : `${count} ${MARKS[kind][1]}`)));
  }

  line({ i, kind, ref, gen, note }) {
    const words = (who, cell) => (cell === null ? el("span", { class: `words ${who} none` }) : el("span", { class: `words ${who}`, "data-i": cell.i },
      el("span", { class: "who" }, `${cell.who} ${clock(this.stream.time[cell.i])} `), el("span", { class: "text" }, cell.text)));
    return el("li", { class: `m-${kind} ${kind}`, "data-i": i, onclick: (event) => this.onPick(Number(event.target.closest("[data-i]").dataset.i)) },
      el("button", { type: "button", "aria-label": `Go to ${clock(this.stream.time[i])}` }, clock(this.stream.time[i])),
      ...(kind === "user" || kind === "event" ? [words("both", ref)] : [words("ref", ref), words("gen", gen)]),
      el("span", { class: "mark" }, MARKS[kind]?.[0] ? el("span", { class: "sign" }, MARKS[kind][0] + " ") : "", note));
  }

  /** Mark the rows of frame `i`, or where nothing is said there, the last row before it. */
  mark(i, reveal) {
    if (!this.items) return;
    let now = this.items.filter(({ row }) => row.frames.includes(i)).map(({ node }) => node);
    if (!now.length) now = this.items.filter(({ row }) => row.i <= i).slice(-1).map(({ node }) => node);
    for (const { node } of this.items) node.classList.toggle("now", now.includes(node));
    if (!now.length || !reveal) return;
    // Scroll the list only, never the page.
    const top = now[0].offsetTop, view = this.list.clientHeight;
    if (top < this.list.scrollTop || top + now[0].offsetHeight > this.list.scrollTop + view) this.list.scrollTop = top - view / 3;
  }
}

/** Everything said and done, in order of time; a pair of reference and generated words is one row. */
function dialogueRows(stream) {
  const rows = [], words = (who, u) => ({ who, i: u.i, text: u.text || "(no words)" });
  const add = (order, kind, ref, gen, note, count = 1) => {
    const frames = [ref, gen].filter((cell) => cell).map((cell) => cell.i);
    rows.push({ i: Math.min(...frames), frames, order, kind, ref, gen, note, count });
  };
  for (const u of stream.user) add(0, "user", words("User", u), null, "");
  const genAt = new Map(stream.gen.map((u) => [u.i, u]));
  for (const u of stream.ref) {
    const partner = u.partner < 0 ? null : genAt.get(u.partner);
    add(2, u.mark, words("Reference", u), partner ? words("Generated", partner) : null, markText(stream, "ref", u));
  }
  for (const u of stream.gen) if (u.partner < 0) add(2, u.mark, null, words("Generated", u), markText(stream, "gen", u));

  const wanted = new Map(stream.refUpdates);
  for (const [i, text, invalid] of stream.genUpdates) {
    const ref = wanted.has(i) ? { who: "State", i, text: wanted.get(i) } : null;
    wanted.delete(i);
    add(1, "update", ref, { who: "State", i, text: text || "(nothing readable)" }, invalid ? `${invalid} invalid` : "", ref ? 2 : 1);
  }
  for (const [i, text] of wanted) add(1, "update", { who: "State", i, text }, null, "");
  for (const [i, name] of stream.events) add(3, "event", { who: "Context", i, text: name }, null, "");
  return rows.sort((a, b) => a.i - b.i || a.order - b.order);
}
