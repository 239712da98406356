"use strict";
// Small makers of elements. Text only ever enters as text nodes: nothing the models or the users
// wrote is parsed as markup.

function el(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

function svg(tag, props, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const byId = (id) => document.getElementById(id);
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));

/** Index of the number in the ascending `list` that is nearest to `x`; -1 in an empty one. */
function nearest(list, x) {
  let low = 0, high = list.length - 1;
  if (high < 0) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle] <= x) low = middle; else high = middle;
  }
  return Math.abs(list[high] - x) < Math.abs(list[low] - x) ? high : low;
}

/** 83.5 -> "1:23.5" */
function clock(seconds, decimals = 1) {
  const scale = 10 ** decimals, whole = Math.round(Math.abs(seconds) * scale);
  const minutes = Math.floor(whole / (60 * scale)), rest = (whole - minutes * 60 * scale) / scale;
  return (seconds < 0 ? "−" : "") + minutes + ":" + (rest < 10 ? "0" : "") + rest.toFixed(decimals);
}

function score(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) && Math.abs(value) > 1) return value.toLocaleString("en");
  const size = Math.abs(value);
  const text = size !== 0 && size < 5e-4 ? value.toExponential(1) : value.toFixed(size >= 100 ? 1 : 3);
  return text.replace("-", "−");
}

const plural = (n, word) => n + " " + word + (n === 1 ? "" : "s");
