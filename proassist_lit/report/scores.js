"use strict";
// The line of main results and the table of all numbers, beside baselines and an earlier run.

function drawHead() {
  byId("title").textContent = DATA.title;
  byId("key").replaceChildren(...DATA.key.map((k) => el("span", {}, `${DATA.split} ${k.label}`,
    el("span", {}, el("b", {}, score(k.value)), k.baseline ? `vs ${score(k.baselineValue)} ${words(k.baseline)}` : "",
      k.change === null ? "" : el("span", { class: `change ${gainOf(k.better)}`, title: `against ${DATA.earlier}` }, ` ${changeText(k.change, k.better)}`)))));
  if (!DATA.key.length) byId("key").textContent = "No results yet.";
}

function drawScores() {
  const { columns, headline, rest, others, settings, earlier } = DATA;
  byId("scores").hidden = !(headline.length || rest.length || others.length || settings.length);
  if (headline.length) byId("headline").append(...scoreTable(columns, headline));
  if (rest.length) byId("rest").append(...scoreTable(columns, rest));
  byId("others").append(...facts(others.map(([key, value]) => [key, typeof value === "string" ? value : score(value)])));
  byId("rest-box").hidden = !(rest.length || others.length);
  byId("rest-box").firstElementChild.textContent = `${plural(rest.length + others.length, "more metric")}`;
  byId("scores-note").textContent = [
    columns.some((c) => c !== "val" && c !== "test") ? `Bold: best of ${DATA.split} and its baselines.` : "",
    earlier ? `Change: ${DATA.split} minus ${earlier}; ✓ for the better, × for the worse.` : "",
  ].join(" ");
  byId("settings").append(...facts(settings));
}

function scoreTable(columns, rows) {
  const isOwn = (name) => name === "val" || name === "test";
  const own = columns.filter(isOwn).length, rivals = columns.length - own, compared = DATA.earlier !== null;
  const kind = (c, i) => (isOwn(c) ? c : "baseline") + (own && i === own ? " divide" : "");
  const cells = (make, between) => [...columns.slice(0, own).map(make), ...(compared ? between : []), ...columns.slice(own).map((c, i) => make(c, own + i))];
  const group = (name, count, className) => (count ? el("th", { class: "group " + className, colspan: count, scope: "colgroup" }, name) : null);
  const groups = rivals || compared
    ? el("tr", {}, el("th", { class: "group" }), group("", own, ""), compared ? group("against " + DATA.earlier, 2, "earlier divide") : null, group("baselines on " + DATA.split, rivals, "baseline" + (own ? " divide" : "")))
    : null;
  const head = el("tr", {}, el("th", { scope: "col" }, "Metric"), ...cells((c, i) => el("th", { scope: "col", class: kind(c, i) }, words(c)),
    [el("th", { scope: "col", class: "earlier divide" }, DATA.split), el("th", { scope: "col", class: "earlier" }, "change")]));
  const line = (row) => {
    const whole = /(^|_|\/)num_|_count$|invalid/.test(row.name), value = (v) => (whole && v !== null ? v.toLocaleString("en") : score(v));
    return el("tr", {}, el("th", { scope: "row", title: row.name }, row.label), ...cells(
      (c, i) => el("td", { class: kind(c, i) + (row.best[i] ? " best" : "") }, value(row.values[i])),
      [el("td", { class: "earlier divide" }, value(row.earlier)),
        el("td", { class: `change ${gainOf(row.better)}` }, row.change === null ? "–" : changeText(row.change, row.better))]));
  };
  return [el("thead", {}, groups, head), el("tbody", {}, ...rows.map(line))];
}

const gainOf = (better) => (better === null ? "even" : better ? "better" : "worse");

/** A difference by sign and number, and whether it is welcome. */
function changeText(change, better) {
  if (Math.abs(change) < 5e-10) return "±0";
  return (change > 0 ? "+" : "") + score(change) + (better === null ? "" : better ? " ✓" : " ×");
}

const words = (name) => name.replaceAll("_", " ");
const facts = (pairs) => pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
