// Every device as a tile, by area, or by kind where a site has no areas.

import { failureText } from "./api.js";
import { controlsFor } from "./controls.js";
import { showWhy } from "./dialogs.js";
import { button, byId, icon, make } from "./dom.js";
import { onState, store } from "./store.js";
import { command } from "./turns.js";
import { glance, mainProperty, mainText, propertyText, titled, valueText } from "./words.js";

const DONE_MS = 6000; // that "done" stays beside a tile; what was not done stays until the next action
const KINDS = {
  light: "Lights", switch: "Switches", climate: "Climate", cover: "Doors and blinds", lock: "Locks", fan: "Fans",
  valve: "Valves", sensor: "Sensors", binary_sensor: "Detectors", media_player: "Players", function: "Functions",
};

let tiles = [];

export function showDevices() {
  tiles = [];
  const place = byId("devices");
  place.replaceChildren(...groups().map(([title, devices]) => groupFor(title, devices)));
  if (!store.site.devices.length) place.append(make("p", { class: "quiet", text: "This box has no devices." }));
  update();
}

// Return [title, devices] of each group, in the site's order; what stands nowhere comes last.
function groups() {
  const { areas, devices } = store.site;
  const hasAreas = Object.keys(areas).length > 0 && devices.some((device) => device.area);
  const found = new Map();
  if (hasAreas) for (const name of [...Object.keys(areas), ""]) found.set(name, []);
  for (const device of devices) {
    const key = hasAreas ? device.area : device.kind;
    found.set(key, [...(found.get(key) ?? []), device]);
  }
  const title = (key) => (hasAreas ? titled(areas[key] ?? "Elsewhere") : (KINDS[key] ?? titled(key)));
  return [...found].filter(([, those]) => those.length).map(([key, those]) => [title(key), those]);
}

function groupFor(title, devices) {
  const id = `group-${byId("devices").dataset.groups = Number(byId("devices").dataset.groups ?? 0) + 1}`;
  return make("section", { class: devices.length > 1 ? "group" : "group is-lone", "aria-labelledby": id },
    make("h3", { id, text: title }), make("div", { class: "tiles" }, ...devices.map(tileFor)));
}

function tileFor(device) {
  const id = `tile-${device.name}`;
  const note = make("div", { class: "note", role: "status" });
  const now = make("p", { class: "now" });
  const act = (action, input) => carryOut(device, action, input, element, note);
  const { main, rest, shown } = controlsFor(device, act);
  const facts = factsFor(device, shown);
  const element = make("article", { class: "tile", "aria-labelledby": id, "data-device": device.name },
    make("div", { class: "tile-head" },
      make("span", { class: "tile-icon" }, icon(device.kind)),
      make("div", { class: "tile-name" }, make("h4", { id, text: titled(device.title) }), now),
      main?.element),
    facts?.element, ...rest.map((one) => one.element), note);
  const controls = [main, facts, ...rest].filter(Boolean);
  tiles.push({ device, element, now, controls });
  return element;
}

// Return the readings that no control shows and the tile's first line does not say.
function factsFor(device, shown) {
  const said = isReadings(device) ? null : mainProperty(device)?.[0];
  const left = Object.entries(device.properties).filter(([name]) => name !== said && !shown.has(name));
  if (!left.length) return null;
  const values = left.map(() => make("dd"));
  const element = make("dl", { class: "facts" }, ...left.map(([name, schema], at) =>
    make("div", {}, make("dt", { text: propertyText(name, schema) }), values[at])));
  return {
    element,
    update: (seen) => left.forEach(([name, schema], at) => (values[at].textContent = valueText(schema, seen[name]))),
  };
}

// Whether a device only measures, and more than one thing.
function isReadings(device) {
  return !Object.keys(device.actions).length && Object.keys(device.properties).length > 1;
}

async function carryOut(device, action, input, element, note) {
  element.setAttribute("aria-busy", "true");
  clearTimeout(note.timer);
  note.replaceChildren();
  try {
    await command(device.name, action, input, (turn) => showTurn(turn, note));
  } catch (error) {
    showNote(note, failureText(error), "failed");
  } finally {
    element.removeAttribute("aria-busy");
    update();
  }
}

function showTurn(turn, note) {
  const bad = turn.actions.find((one) => one.status !== "done");
  showNote(note, turn.answer, bad?.status ?? "done", (bad ?? turn.actions[0])?.command);
}

function showNote(note, text, status, number) {
  note.className = `note is-${status}`;
  note.replaceChildren(make("span", { text }));
  if (number) note.append(button("Why?", () => showWhy(number), { class: "link", "aria-label": `Why? Command ${number}` }));
  clearTimeout(note.timer);
  if (status === "done") note.timer = setTimeout(() => note.replaceChildren(), DONE_MS);
}

function update() {
  for (const { device, element, now, controls } of tiles) {
    const seen = store.state[device.name] ?? {};
    const isSilent = Object.keys(device.properties).length > 0 && !Object.keys(seen).length;
    now.textContent = isSilent ? "Does not answer" : isReadings(device) ? "" : mainText(device, seen);
    element.classList.toggle("is-silent", isSilent);
    element.dataset.glance = glance(device, seen);
    controls.forEach((one) => one.update(seen));
  }
}

onState(update);
