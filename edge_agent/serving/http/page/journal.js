// The journal, one entry a command, the latest first.

import { get } from "./api.js";
import { showWhy } from "./dialogs.js";
import { button, byId, make } from "./dom.js";
import { store } from "./store.js";
import { STATUS, commandText, timeText, titled } from "./words.js";

const MOST_ENTRIES = 100;
const EVENTS = 300; // to begin with
const SOON_MS = 50; // several entries come at once
let timer = 0;
const entries = new Map(); // by command: {command, last, time_s, body, status, texts}

export async function loadJournal() {
  const { events } = await get(`journal?count=${EVENTS}`);
  entries.clear();
  events.forEach(take);
  show();
}

export function hearEvent(event) {
  take(event);
  clearTimeout(timer);
  timer = setTimeout(show, SOON_MS);
}

function take(event) {
  if (event.event === "ASKED") return; // the conversation shows it
  const entry = entries.get(event.command) ?? { command: event.command, texts: [], status: "", line: event.line };
  if (entry.last >= event.id) return;
  entry.last = event.id;
  entry.time_s = event.time_s;
  if (event.event === "PROPOSED") entry.body = event.body;
  else if (event.event === "STARTED") entry.status ||= "started";
  else if (event.event === "ENDED") entry.texts.push(`Ended. ${event.body.report ?? ""}`);
  else {
    entry.status = event.event.toLowerCase();
    if (event.body.report) entry.texts.push(event.body.report);
  }
  entries.delete(event.command); // the latest comes last in a map
  entries.set(event.command, entry);
  if (entries.size > MOST_ENTRIES) entries.delete(entries.keys().next().value);
}

function show() {
  const latest = [...entries.values()].reverse();
  const place = byId("journal");
  const focused = document.activeElement?.dataset?.command;
  place.replaceChildren(...latest.map(entryFor));
  if (!latest.length) place.append(make("li", { class: "quiet", text: "Nothing was asked of the devices yet." }));
  if (focused) place.querySelector(`[data-command="${focused}"]`)?.focus();
}

function entryFor(entry) {
  if (!entry.body) {
    return make("li", { class: "entry" }, make("time", { text: timeText(entry.time_s) }),
      make("div", {}, make("p", { text: entry.texts.join(" ") || entry.line.trim() })));
  }
  const device = store.devices.get(entry.body.device);
  const title = titled(device?.title ?? entry.body.device);
  const what = commandText(device, entry.body.action, entry.body.input);
  const by = entry.body.by === "stop" ? make("span", { class: "badge", text: "Stop" }) : null;
  return make("li", { class: `entry is-${entry.status}` },
    make("time", { text: timeText(entry.time_s) }),
    make("div", {},
      make("p", { class: "entry-what" }, make("strong", { text: title }), ` ${what.charAt(0).toLowerCase()}${what.slice(1)} `, by,
        make("span", { class: "chip-status", text: STATUS[entry.status] ?? (entry.status || "asked") })),
      ...entry.texts.map((text) => make("p", { class: "entry-text", text }))),
    button("Why?", () => showWhy(entry.command), { class: "link", "data-command": entry.command, "aria-label": `Why? ${title}: ${what}` }));
}
