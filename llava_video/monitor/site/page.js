// Facts of a watch, as they come → the page. Whatever strangers wrote becomes text, never markup.
"use strict";

const byId = (id) => document.getElementById(id);

function make(name, text, cls) {
  const node = document.createElement(name);
  if (text !== undefined && text !== null && text !== "") node.textContent = String(text);
  if (cls) node.className = cls;
  return node;
}

const clock = (s) => (s ? new Date(s * 1000).toLocaleTimeString() : "never");
const share = (x) => `${Math.round(x * 100)} %`;
const said = (value) => (value === null || value === undefined ? "" :
  typeof value === "string" ? value : JSON.stringify(value));

function pairs(list, facts) {
  list.replaceChildren(...facts.map(([name, value]) => {
    const div = make("div");
    div.append(make("dt", name), make("dd", value));
    return div;
  }));
}

function answers(table, camera) {
  table.replaceChildren(...Object.entries(camera.answers).map(([rule, one]) => {
    const row = make("tr");
    const sure = one.confidence === null ? "" : ` (${share(one.confidence)})`;
    row.append(make("th", rule), make("td", said(one.value) + sure),
      make("td", one.why + (one.reused && one.why !== "reused" ? ", reused" : ""), one.alert ? "raised" : ""));
    return row;
  }));
}

function cameraNode(camera) {
  const node = make("article");
  const picture = make("img");
  picture.alt = `last frame of ${camera.name}`;
  node.append(make("h3", camera.name), picture, make("small"), make("dl"), make("table"), make("p", "", "problem"));
  return node;
}

function showCameras(cameras) {
  const place = byId("cameras");
  while (place.children.length > cameras.length) place.lastChild.remove();
  cameras.forEach((camera, idx) => {
    if (!place.children[idx]) place.append(cameraNode(camera));
    const node = place.children[idx];
    const [, picture, where, facts, table, problem] = node.children;
    if (camera.frame !== null && picture.dataset.frame !== String(camera.frame)) {
      picture.dataset.frame = camera.frame;
      picture.src = `frame/${idx}.jpg?${camera.frame}`;
    }
    where.textContent = `${camera.state} ${camera.address}, last frame ${clock(camera.frame_at_s)}`;
    pairs(facts, [["asked", camera.windows.asked], ["reused", share(camera.reused_share)],
      ["dropped", `${camera.windows.dropped} (${share(camera.dropped_share)})`], ["failed", camera.windows.failed],
      ["waiting", camera.depth],
      ["per window", `${camera.window_s.toFixed(2)} s`]]);
    answers(table, camera);
    const failures = camera.failures.map((reason) => `no answer: ${reason}`);
    problem.textContent = [camera.state === "live" ? "" : camera.reason, ...failures].filter(Boolean).join(" ");
  });
}

function alertNode(alert) {
  const node = make("li", "", alert.severity);
  node.dataset.alert = alert.alert_id;
  const shown = alert.files.find((one) => one.kind === "snapshot") || alert.files.find((one) => one.kind === "sheet");
  node.append(make("h3", `${alert.camera}: ${alert.rule}`));
  if (shown) {
    const picture = make("img");
    picture.src = `evidence/${encodeURIComponent(shown.name)}`;
    picture.alt = `evidence of ${alert.rule}`;
    node.append(picture);
  }
  const sure = alert.confidence === null ? "" : ` (${share(alert.confidence)})`;
  node.append(make("div", `${said(alert.answer)}${sure}`), make("small", `${alert.severity}, ${alert.at}`));
  if (alert.description) node.append(make("p", alert.description));
  for (const warning of alert.warnings || []) node.append(make("p", warning, "problem"));
  if (alert.problem) node.append(make("p", alert.problem, "problem"));
  const sheet = alert.files.find((one) => one.kind === "sheet");
  if (sheet) {
    const link = make("a", "frames with their times");
    link.href = `evidence/${encodeURIComponent(sheet.name)}`;
    node.append(link);
  }
  return node;
}

function showAlerts(alerts) {
  byId("none").hidden = alerts.length > 0;
  const place = byId("alerts");
  const key = JSON.stringify(alerts);
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.replaceChildren(...alerts.map(alertNode));
}

function showSinks(sinks) {
  byId("sinks").replaceChildren(...sinks.map((one) => {
    const words = `${one.sink}: ${one.delivered} delivered, ${one.waiting} waiting`;
    const node = make("li", words);
    if (one.problem) node.append(make("div", one.problem, "problem"));
    return node;
  }));
}

function show(facts) {
  isEnded = facts.ended;
  const state = byId("state");
  state.textContent = facts.ended ? "ended" : `live, ${clock(facts.at_s)}`;
  state.className = facts.ended ? "lost" : "";
  pairs(byId("totals"), [["queue", facts.cameras.reduce((sum, one) => sum + one.depth, 0)],
    ["to describe", facts.updates || 0], ["evidence", `${((facts.evidence_bytes || 0) / 1048576).toFixed(1)} MiB`]]);
  showCameras(facts.cameras);
  showAlerts(facts.alerts);
  showSinks(facts.sinks || []);
}

let isEnded = false;
const events = new EventSource("events");
events.onmessage = (event) => show(JSON.parse(event.data));
events.onerror = () => {
  const state = byId("state");
  state.textContent = isEnded ? "ended" : "no connection; trying again …";
  state.className = "lost";
};
