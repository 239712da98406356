"use strict";
// The page: what was seen, thought and said, as it happens.

const SIGNS = { not_started: "○", in_progress: "◐", completed: "●" };
const MOST_TIMES = 400;
const MOST_LINES = 500;
const LAST_MS = 6000;

let about = null, source = null, token = "", steps = [], state = {}, silence = 0;
let times = [], sent = new Map(), watched = 0;

const link = new Link({ welcome, answer, lost, ended });

async function enter() {
  try {
    const response = await fetch("about", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
    if (response.status === 401) {
      byId("token-box").hidden = byId("enter").hidden = false;
      say_status(token ? "This is not the token." : "A token is needed.");
      return;
    }
    if (!response.ok) throw new Error(`the server says ${response.status}`);
    about = await response.json();
  } catch (error) {
    fault(`The server cannot be reached: ${error.message}`);
    return;
  }
  byId("token-box").hidden = byId("enter").hidden = true;
  byId("task-box").hidden = byId("sources").hidden = byId("main").hidden = false;
  byId("task").replaceChildren(...Object.entries(about.tasks).map(([name, n]) => el("option", { value: name }, `${name} (${plural(n, "step")})`)));
  byId("words").maxLength = about.max_words;
  byId("meter-dst").hidden = !about.has_dst;
  const hasCamera = Boolean(navigator.mediaDevices && navigator.mediaDevices.getUserMedia);
  byId("camera").disabled = !hasCamera;
  byId("aloud").disabled = !("speechSynthesis" in window);
  say_status(hasCamera ? "Choose what is watched." : "Choose a video. Browsers give cameras to pages of https:// and of localhost only.");
}

async function begin(open) {
  stop();
  fault("");
  try {
    source = await open(byId("video"));
  } catch (error) {
    fault(error.name === "NotAllowedError" ? "The camera was not allowed." : error.message);
    return;
  }
  times = [], sent = new Map(), watched = 0;
  byId("dialogue").replaceChildren();
  byId("stop").disabled = false;
  link.begin({ token, task: byId("task").value });
}

function stop() {
  if (!source) return;
  source.stop();
  source = null;
  link.end();
  if (window.speechSynthesis) speechSynthesis.cancel();
  byId("stop").disabled = byId("send").disabled = true;
  say_status("Stopped.");
}

function welcome(message) {
  steps = message.steps;
  if (message.resumed) note("The connection is back.");
  byId("dialogue").querySelectorAll("[data-frame]").forEach((line) => line.remove());
  for (const old of message.history) if (old.type === "frame") lines(old);
  show_state(message.state);
  for (const which of ["speak", "dst"]) {
    const theta = message.thresholds[which], slider = byId(`meter-${which}`).querySelector("input");
    slider.min = Math.min(0, 2 * theta), slider.max = Math.max(1, 2 * theta);  // by stream.rule it may be anything
    show_threshold(which, theta);
  }
  byId("send").disabled = false;
  say_status(`Watching, ${about.fps} frames a second.`);
  if (source && !source.timer) {
    source.start(about.fps, about.max_frame_bytes, async (number, blob) => {
      const began = performance.now();
      if (await link.frame(number, blob)) sent.set(number, began);
    });
  }
}

function lost() {
  byId("send").disabled = true;
  say_status("The connection is lost; trying again …");
}

function ended(message) {
  const words = message;
  stop();
  fault(`The session has ended: ${words}`);
}

function answer(message) {
  if (message.type === "refused") return note(`Refused: ${message.message}`);
  watched++;
  const began = sent.get(message.frame);
  if (began !== undefined) times.push(performance.now() - began);
  for (const number of sent.keys()) if (number <= message.frame) sent.delete(number);
  if (times.length > MOST_TIMES) times.shift();
  show_meter("speak", message.speak_prob, message.speak);
  if (message.dst_prob !== null) show_meter("dst", message.dst_prob, message.dst);
  byId("fact-time").textContent = clock(message.time_s);
  byId("fact-watched").textContent = watched;
  byId("fact-dropped").textContent = message.dropped + link.dropped;
  show_times();
  lines(message);
  if (message.state) show_state(message.state);
  if (message.text) speak(message.text);
}

function show_times() {
  if (!times.length) return;
  const sorted = [...times].sort((a, b) => a - b), ms = (value) => `${value.toFixed(0)} ms`;
  const share = (q) => sorted[Math.floor(q * (sorted.length - 1))];
  byId("fact-latency").textContent = ms(times[times.length - 1]);
  byId("fact-p50").textContent = ms(share(0.5));
  byId("fact-p95").textContent = ms(share(0.95));
}

function show_meter(which, prob, fired) {
  const meter = byId(`meter-${which}`);
  meter.querySelector(".fill").style.width = `${100 * prob}%`;
  meter.querySelector(".number").textContent = prob.toFixed(2);
  meter.classList.toggle("fired", fired);
}

function show_threshold(which, theta) {
  const meter = byId(`meter-${which}`);
  meter.querySelector("input").value = theta;
  meter.querySelector(".theta").style.left = `${100 * Math.min(Math.max(theta, 0), 1)}%`;
  meter.querySelector(".threshold").textContent = theta.toFixed(2);
  meter.dataset.theta = theta;
}

/** Add to the dialogue what happened at a frame. */
function lines(message) {
  const add = (who, words) => line(message.frame, clock(message.time_s), who, words);
  if (message.user) add("user", message.user);
  for (const [id, now] of Object.entries(message.changed || {})) {
    const step = steps.find(([known]) => known === id);
    add("state", `${SIGNS[now]} ${id} ${step ? step[1] : ""}: ${now.replace("_", " ")}`);
  }
  if (message.text) add("assistant", message.text);
  if (message.event) add("note", `context: ${message.event.replace("_", " ")}`);
}

function note(words) {
  line(null, "", "note", words);
}

function line(frame, time, who, words) {
  const list = byId("dialogue"), follows = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
  const name = { user: "You: ", assistant: "Assistant: " }[who];
  list.append(el("li", { "data-frame": frame, "data-who": who }, el("time", {}, time), el("span", { class: who }, name ? el("span", { class: "hidden-words" }, name) : null, words)));
  while (list.children.length > MOST_LINES) list.firstChild.remove();
  if (follows) list.scrollTop = list.scrollHeight;
}

function show_state(now) {
  state = { ...state, ...now };
  const row = ([id, name]) => el("li", { class: now[id], "data-step": id }, el("span", { class: "sign", "aria-hidden": "true" }, SIGNS[now[id]]), el("b", {}, id),
    el("span", {}, name, el("span", { class: "hidden-words" }, `, ${String(now[id]).replace("_", " ")}`)));
  byId("steps").replaceChildren(...(steps.length ? steps.map(row) : [el("li", { class: "none" }, "This task has no steps.")]));
  const doing = byId("steps").querySelector(".in_progress");
  if (doing) byId("steps").scrollTop = Math.max(0, doing.offsetTop - byId("steps").offsetTop - 60);
}

function speak(words) {
  byId("spoken").textContent = words;
  clearTimeout(silence);
  silence = setTimeout(() => (byId("spoken").textContent = ""), LAST_MS);
  if (!byId("aloud").checked) return;
  if (speechSynthesis.pending) speechSynthesis.cancel();  // what is said late is of no use
  speechSynthesis.speak(new SpeechSynthesisUtterance(words));
}

function say_status(words) {
  byId("status").textContent = words;
}

function fault(words) {
  byId("fault").textContent = words;
  byId("fault").hidden = !words;
}

byId("setup").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  if (!about) enter();
});
byId("camera").addEventListener("click", () => begin((video) => Source.camera(video)));
byId("file").addEventListener("change", () => {
  const [file] = byId("file").files;
  byId("file").value = "";
  if (file) begin((video) => Source.file(video, file));
});
byId("stop").addEventListener("click", stop);
addEventListener("pagehide", stop);
byId("video").addEventListener("ended", () => source && say_status("The video is over."));
byId("aloud").addEventListener("change", () => byId("aloud").checked || speechSynthesis.cancel());
byId("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = byId("words").value.trim();
  if (!words || !link.ready) return;
  link.send({ type: "say", text: words });
  byId("words").value = "";
});
for (const which of ["speak", "dst"]) {
  byId(`meter-${which}`).querySelector("input").addEventListener("input", (event) => {
    show_threshold(which, Number(event.target.value));
    link.send({ type: "thresholds", speak: Number(byId("meter-speak").dataset.theta), dst: Number(byId("meter-dst").dataset.theta || 1) });
  });
}
enter();
