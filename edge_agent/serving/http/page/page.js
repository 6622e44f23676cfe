// The page: starts everything, keeps the connection, and stops.

import { News, get, giveUpAll, post } from "./api.js";
import { showDevices } from "./devices.js";
import { closeQuestions, startDialogs } from "./dialogs.js";
import { button, byId, make } from "./dom.js";
import { loadHealth, startHealth } from "./health.js";
import { hearEvent, loadJournal } from "./journal.js";
import { refreshState, setSite, setState, store, onState } from "./store.js";
import { startTalk, welcome } from "./talk.js";
import { titled } from "./words.js";

const LOST_AFTER_MS = 1000; // a connection that comes back at once is no news
const STOP_TRIES_MS = [0, 500, 1500];
const SAID_MS = 8000;
const VIEWS = ["talk", "devices", "journal", "health"];
const BEFORE = new Set(["PROPOSED", "STARTED"]); // entries before anything has changed
const MODES = { assist: "Asks before every action", dry_run: "Dry run: nothing moves", locked: "Locked" };

const windows = new BroadcastChannel("edgewright"); // of this browser, on this box
let news = null;
let lostTimer = 0;
let isRefreshing = false;

function showView() {
  const wanted = /^#\/(\w+)$/.exec(location.hash)?.[1];
  if (wanted !== undefined && VIEWS.includes(wanted)) document.body.dataset.view = wanted;
  const { view } = document.body.dataset;
  for (const link of document.querySelectorAll(".views a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "health") loadHealth();
  byId("talk-scroll").scrollTop = byId("talk-scroll").scrollHeight;
}

function showSite() {
  const { site } = store;
  document.title = `${titled(site.title)} – Edgewright`;
  byId("site-title").textContent = titled(site.title);
  byId("site-model").textContent = site.model;
  byId("simulated").hidden = site.is_live;
  byId("mode").hidden = !(site.mode in MODES);
  byId("mode").textContent = MODES[site.mode] ?? "";
  showDevices();
  welcome();
}

// Load everything anew: at the start, and when the connection was lost. Another site may run there by now.
async function refresh() {
  if (isRefreshing) return;
  isRefreshing = true;
  try {
    const site = await get("site");
    const isNew = JSON.stringify({ ...site, clock: "" }) !== JSON.stringify({ ...store.site, clock: "" });
    setSite(site);
    if (isNew) showSite();
    await Promise.all([refreshState(), loadJournal()]);
    if (document.body.dataset.view === "health") await loadHealth();
  } catch (error) {
    if (error.kind === "answer") say(error.message, "failed"); // a lost connection has its own banner
  } finally {
    isRefreshing = false;
  }
}

function hear(event, body) {
  if (event === "state") setState(body);
  else if (event === "journal") {
    hearEvent(body);
    if (!BEFORE.has(body.event)) refreshState().catch(() => {}); // news of states leave out what lasted a moment
  }
  else if (event === "problem") say(body.text, "failed");
}

function showConnection(isThere, waitMs, reason) {
  clearTimeout(lostTimer);
  if (isThere) {
    document.body.classList.remove("is-lost");
    byId("lost").hidden = true;
    refresh();
    return;
  }
  const isShown = !byId("lost").hidden;
  lostTimer = setTimeout(() => {
    byId("lost").hidden = false;
    document.body.classList.add("is-lost");
    const text = `${reason || "The connection to the box is lost."} What is shown may be old.`;
    if (byId("lost-text").textContent !== text) byId("lost-text").textContent = text; // said once, not at each try
  }, isShown ? 0 : Math.max(LOST_AFTER_MS, waitMs));
}

// Say something above everything else until it is dismissed; what is fine goes by itself.
function say(text, kind) {
  const item = make("div", { class: `said is-${kind}` }, make("span", { text }),
    button("Dismiss", () => item.remove(), { class: "link" }));
  const place = byId("said");
  [...place.children].filter((one) => one.firstElementChild.textContent === text).forEach((one) => one.remove());
  place.append(item);
  while (place.childElementCount > 3) place.firstElementChild.remove();
  if (kind === "done") setTimeout(() => item.remove(), SAID_MS);
  return item;
}

// Let go of every connection: all windows of a browser share six to a server, and Stop must have one at once.
function makeRoom() {
  giveUpAll();
  news.drop();
}

// Stop, before everything else: what is on its way is given up, and a question is answered with no.
async function stop() {
  byId("stop").setAttribute("aria-busy", "true");
  makeRoom();
  windows.postMessage("make room");
  const answer = stopped();
  closeQuestions();
  try {
    const { problems } = await answer;
    if (problems.length) say(`Stopped, but: ${problems.join("; ")}.`, "failed");
    else say("Stopped. Every safe state was read back.", "done");
  } catch (error) {
    say(`Stop did not reach the box: ${error.message} Use the switch at the device.`, "failed");
  } finally {
    byId("stop").removeAttribute("aria-busy");
    refreshState().catch(() => {});
  }
}

async function stopped() {
  for (let at = 0; ; at += 1) {
    if (at) await new Promise((resolve) => setTimeout(resolve, STOP_TRIES_MS[at]));
    try {
      return await post("stop");
    } catch (error) {
      if (at === STOP_TRIES_MS.length - 1) throw error;
    }
  }
}

startDialogs();
startTalk();
startHealth();
onState(() => (byId("clock").textContent = store.clock));
byId("stop").addEventListener("click", stop);
windows.addEventListener("message", makeRoom);
byId("retry").addEventListener("click", () => news.again());
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  if (getComputedStyle(byId("ask")).visibility === "hidden" || !byId("ask").offsetParent) location.hash = "#/talk";
  setTimeout(() => byId("ask").focus());
});
window.addEventListener("hashchange", showView);
showView();
news = new News(hear, showConnection);
