"use strict";
// The state of the task's steps over a stream: at one frame, and where it was wrong.

const STATE_SIGNS = { "-1": "–", 0: "○", 1: "◐", 2: "●" };
const stateName = (code) => (code < 0 ? "unknown" : STATES[code]);

/** State code of one step at frame `i`; `runs` are [first frame, code]. */
function stateAt(runs, i) {
  let code = -1;
  for (const [from, next] of runs) {
    if (from > i) break;
    code = next;
  }
  return code;
}

/**
 * Stretches of frames [from, to) at which the predicted state of a step is not the reference's, with
 * the [predicted, reference] codes that occur, in order.
 */
function wrongStretches(genRuns, refRuns, n) {
  const edges = [...new Set([...genRuns, ...refRuns].map(([from]) => from))].sort((a, b) => a - b);
  const found = [];
  edges.forEach((from, k) => {
    const pair = [stateAt(genRuns, from), stateAt(refRuns, from)], to = k + 1 < edges.length ? edges[k + 1] : n;
    if (pair[0] === pair[1]) return;
    const last = found[found.length - 1];
    if (last && last.to === from) last.to = to, last.pairs.push(pair);
    else found.push({ from, to, pairs: [pair] });
  });
  return found;
}

/** Steps with both states at frame `i`; those that differ are marked. */
function stateBoard(stream, i) {
  const cell = (code, who) => el("td", { class: `state-${code}` }, el("span", { "aria-hidden": "true" }, STATE_SIGNS[code] + " "), el("span", { class: who }, stateName(code)));
  let wrong = 0;
  const rows = stream.steps.map(([id, name], k) => {
    const gen = stateAt(stream.genStates[k], i), ref = stateAt(stream.refStates[k], i);
    wrong += gen !== ref;
    return el("tr", { class: gen === ref ? (gen === 1 ? "doing" : "") : "differs" }, el("th", { scope: "row", title: name }, el("b", {}, id), " " + name),
      cell(ref, "ref"), cell(gen, "gen"), el("td", { class: "sign" }, gen === ref ? "" : "≠"));
  });
  const head = el("tr", {}, el("th", { scope: "col" }, "State: ", wrong ? `${wrong} of ${rows.length} steps wrong` : "as the reference"),
    el("th", { scope: "col" }, "Reference"), el("th", { scope: "col" }, "Predicted"), el("th", {}));
  return [el("thead", {}, head), el("tbody", {}, ...rows)];
}
