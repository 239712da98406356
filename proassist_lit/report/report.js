"use strict";
// Fills the page, part by part. Last script; starts everything.

function fault(message) {
  byId("fault").hidden = false;
  byId("fault").textContent = "This report could not be drawn completely: " + message;
  document.documentElement.dataset.fault = message;
}
addEventListener("error", (event) => fault(event.message));

const DATA = JSON.parse(byId("data").textContent);

/** Links to the parts that this report has. */
function drawPlaces() {
  const parts = [...document.querySelectorAll("main > section:not([hidden])")];
  byId("places").replaceChildren(...parts.map((part) => el("a", { href: "#" + part.id }, part.querySelector("h2").textContent)));
}

function start() {
  drawHead();
  drawScores();
  if (DATA.thresholds.length) new Explorer(DATA.thresholds);
  drawCurves(DATA.curves);
  byId("notes").append(...facts(DATA.notes));
  byId("config").textContent = DATA.config;
  byId("config-box").hidden = !DATA.config;
  byId("run").hidden = !(DATA.notes.length || DATA.config);

  if (DATA.streams.length) {
    byId("streams").hidden = false;
    const player = new Player(DATA.streams);
    drawLegend();
    if (DATA.hasWords) new ErrorBrowser(DATA.streams, (index, i) => player.open(index, i));
    // report.html#stream=3&frame=40 opens there, for links from notes and issues.
    const asked = new URLSearchParams(location.hash.slice(1)), index = clamp(Number(asked.get("stream")) || 0, 0, DATA.streams.length - 1);
    player.select(index, asked.has("frame") ? frameNear(DATA.streams[index], Number(asked.get("frame")) || 0) : undefined);
  }
  drawPlaces();
  document.documentElement.dataset.ready = "1";
  performance.mark("ready");
}

/** Position in the stream of the frame that is nearest to number `frame` of the video. */
const frameNear = (packed, frame) => (packed.frames ? nearest(packed.frames, frame) : frame - packed.first);
start();
