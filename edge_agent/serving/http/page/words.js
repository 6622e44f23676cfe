// Values, devices and times as people read them.

const UNITS = { percent: "\u00a0%", degrees: "°", celsius: "\u00a0°C", watts: "\u00a0W", volts: "\u00a0V", amperes: "\u00a0A" };
const DAY_S = 86400;

export function titled(text) {
  const plain = String(text).replaceAll("_", " ");
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}

export function numberText(value) {
  return String(Math.round(value * 10) / 10);
}

export function unitText(unit) {
  return unit ? (UNITS[unit] ?? `\u00a0${unit}`) : "";
}

// Return a value of a property or argument: "on", "40 %", "18.5°", "2 (medium)".
export function valueText(schema, value) {
  if (value === undefined || value === null) return "unknown";
  if (typeof value === "boolean") return schema.labels?.[String(value)] ?? (value ? "yes" : "no");
  if (typeof value !== "number") return String(value).replaceAll("_", " ");
  const level = Object.entries(schema.levels ?? {}).find(([, number]) => Math.abs(number - value) < 1e-9);
  return numberText(value) + unitText(schema.unit) + (level ? ` (${level[0]})` : "");
}

// Return what a tile says of its device before anything else; a cover is open, closed or in between.
export function mainText(device, values) {
  const [name, schema] = mainProperty(device) ?? [];
  if (!name || values[name] === undefined) return "";
  const value = values[name];
  const text = valueText(schema, value);
  if (typeof value !== "number") return titled(text);
  if (device.kind === "cover" && name === "position") {
    if (value <= 0 || value >= 100) return value <= 0 ? "Closed" : "Open";
    return `${text} open`;
  }
  return `${propertyText(name, schema)} ${text}`;
}

// Return the property that tells best how a device is: a boolean of its own, else what it measures, else the first one.
export function mainProperty(device) {
  const all = Object.entries(device.properties);
  const written = new Set(Object.values(device.actions).flatMap((action) => Object.keys(action.writes)));
  const isMeasured = ([name, schema]) => schema.type !== "string" && schema.type !== "boolean" && !written.has(name);
  const first = all[0];
  return all.find(([name, schema]) => schema.type === "boolean" && isOwn(name, schema))
    ?? (first?.[1].type === "string" ? first : all.find(isMeasured)) ?? first;
}

function isOwn(name, schema) {
  return !schema.title || schema.title === name.replaceAll("_", " ");
}

export function propertyText(name, schema) {
  return titled(schema.title || name);
}

const ALARMS = new Set(["smoke", "wet", "gas", "carbon_monoxide", "tamper", "battery_low"]);

// Return "" , "active" or "alarm": whether a device does something that one should see at a glance.
export function glance(device, values) {
  const isTrue = ([name, value]) => value === true && device.properties[name]?.type === "boolean";
  const entries = Object.entries(values);
  if (entries.some(([name, value]) => ALARMS.has(name) && value === true)) return "alarm";
  const quiet = new Set(["locked", "clear", "available", "child_lock", "muted"]);
  if (entries.some((entry) => isTrue(entry) && !quiet.has(entry[0]))) return "active";
  if (values.locked === false || values.speed > 0) return "active";
  return device.kind === "cover" && (values.position > 0 || values.state === "open") ? "active" : "";
}

export function secondsText(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  return whole === 1 ? "1 second" : `${whole} seconds`;
}

export function durationText(seconds) {
  const parts = [[DAY_S, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => seconds >= size);
  if (first < 0) return "0 s";
  let left = Math.round(seconds);
  return parts.slice(first, first + 2).map(([size, unit]) => {
    const count = Math.floor(left / size);
    left -= count * size;
    return `${count} ${unit}`;
  }).join(" ");
}

// Return a journal's time: of day alone for a simulated clock, which starts at midnight.
export function timeText(time_s) {
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  if (time_s < 2 * DAY_S) return `${two((time_s / 3600) % 24)}:${two((time_s / 60) % 60)}:${two(time_s % 60)}`;
  const time = new Date(time_s * 1000);
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  const isToday = time.toDateString() === new Date().toDateString();
  return isToday ? clock : `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${clock}`;
}

export const STATUS = {
  done: "done",
  refused: "refused",
  needs_confirmation: "needs a yes",
  failed: "failed",
  unknown: "not known",
  dry_run: "dry run",
};

// Return what a button of an action says. One that asks first ends in an ellipsis.
export function actionText(device, name) {
  const action = device.actions[name];
  const titles = Object.values(device.actions).map((one) => one.title);
  const isClear = action.title && !Object.keys(action.input).length && titles.filter((one) => one === action.title).length === 1;
  return titled(isClear ? action.title : name) + (action.risk === "confirm" ? "…" : "");
}

// Return a command in words, as "Set, target 21°" of the hall thermostat.
export function commandText(device, name, input) {
  const action = device?.actions[name];
  const given = Object.entries(input ?? {}).map(([key, value]) =>
    action?.input[key] ? `${key.replaceAll("_", " ")} ${valueText(action.input[key], value)}` : `${key} ${value}`);
  return [titled(action ? actionText(device, name).replace("…", "") : name), ...given].join(", ");
}
