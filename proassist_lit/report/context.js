"use strict";
// The lane of the context's length over time, with the refreshes that cut it.

function drawContext(timeline) {
  const s = timeline.stream, most = Math.max(...s.context, 1);
  if (most <= 1) return; // the length is not known
  const height = 46, floor = height - 4, y = (tokens) => 6 + (1 - tokens / most) * (floor - 6);
  const lane = timeline.lane([el("b", {}, "Context"), el("br"), "tokens", el("span", { class: "tick", style: { top: y(most) + 3 + "px" } }, tickTokens(most)), el("span", { class: "tick", style: { top: y(0) - 3 + "px" } }, "0")], height, "context");
  const sheet = timeline.sheet(lane, height), x = (i) => timeline.x(s.time[i]).toFixed(1);
  for (const tokens of [0, most]) sheet.append(svg("line", { class: "grid", x1: 0, x2: timeline.width, y1: y(tokens), y2: y(tokens) }));
  let d = `M${x(0)} ${y(0)}`;
  s.context.forEach((tokens, i) => (d += `L${x(i)} ${y(tokens).toFixed(1)}`));
  sheet.append(svg("path", { class: "context-line", d: d + `L${x(s.n - 1)} ${y(0)}Z` }));
  for (const [i, name] of s.events) {
    sheet.append(svg("path", { class: "refresh", d: `M${x(i)} ${y(s.context[i]) - 5}l4 5l-4 5l-4 -5z` },
      svg("title", {}, `${clock(s.time[i])} ${name} at ${s.context[i].toLocaleString("en")} tokens`)));
  }
}

const tickTokens = (tokens) => (tokens >= 10000 ? Math.round(tokens / 1000) + "k" : tokens.toLocaleString("en"));
