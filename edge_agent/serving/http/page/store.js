// What this page knows of the box: the site as it was described, and the state as it was last read back.

import { get } from "./api.js";

export const store = { site: null, devices: new Map(), state: {}, clock: "" };
const listeners = [];

export function onState(listen) {
  listeners.push(listen);
}

export function setSite(site) {
  store.site = site;
  store.devices = new Map(site.devices.map((device) => [device.name, device]));
  store.clock = site.clock;
}

export function setState({ state, clock }) {
  store.state = state;
  store.clock = clock ?? store.clock;
  for (const listen of listeners) listen();
}

// Take over what the broker read back for a command, before the next state comes.
export function applyResults(actions) {
  for (const { device, result } of actions) {
    const known = store.devices.get(device)?.properties ?? {};
    const seen = Object.entries(result ?? {}).filter(([name]) => name in known);
    if (seen.length) store.state[device] = { ...store.state[device], ...Object.fromEntries(seen) };
  }
  for (const listen of listeners) listen();
}

let reading = null;
let isWantedAgain = false;

// Read the state anew. What is shown in the end was asked for after the last call of this, however many there are.
export function refreshState() {
  if (reading) isWantedAgain = true;
  reading ??= read().finally(() => (reading = null));
  return reading;
}

async function read() {
  do {
    isWantedAgain = false;
    const state = await get("state");
    if (!isWantedAgain) setState(state);
  } while (isWantedAgain);
}
