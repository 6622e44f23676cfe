// Controls of one device, made from its actions. Each shows what was read back, never what was wished.
// A control is {element, update(values)}; `act(action, input)` carries out and returns when all is settled.

import { button, make } from "./dom.js";
import { actionText, numberText, propertyText, titled, unitText, valueText } from "./words.js";

const MOST_STEPS = 1000; // of a slider
const MOST_CHOICES = 5; // as buttons side by side
const QUIET_MS = 350; // after the last key on a slider
const LEFT_MS = 6000; // until a slider that nobody let go of shows the reading again

let count = 0;

// Return the controls of a device: {main, rest, shown}; `main` is a switch for the tile's first line, or null, and
// `shown` are the properties that the controls show.
export function controlsFor(device, act) {
  const left = new Map(Object.entries(device.actions));
  const rest = [];
  const shown = new Set();
  let main = null;
  for (const [property, schema] of Object.entries(device.properties)) {
    const pair = schema.type === "boolean" ? switchPair(left, property) : null;
    if (!pair || !isOnOff(schema)) continue;
    pair.forEach((name) => left.delete(name));
    shown.add(property);
    const made = switchControl(device, property, pair, act, main === null);
    if (main) rest.push(made);
    else main = made;
  }
  const plain = [];
  for (const [name, action] of left) {
    const [argument, ...more] = Object.keys(action.input);
    const property = more.length || action.is_timed ? undefined : writtenBy(action, argument);
    if (argument === undefined) {
      plain.push(name);
      continue;
    }
    const made = property ? valueControl(device, name, argument, property, act) : null;
    if (made) shown.add(property);
    rest.push(made ?? formControl(device, name, act));
  }
  if (plain.length) rest.push(buttonsControl(device, plain, act));
  return { main, rest, shown };
}

function isOnOff(schema) {
  const labels = schema.labels ?? {};
  return Object.keys(labels).length === 0 || (labels.true === "on" && labels.false === "off");
}

// Return the names of the actions that make a boolean true and false, and nothing needs to be given for.
function switchPair(actions, property) {
  const making = (value) => [...actions].find(([, action]) =>
    !action.is_timed && !Object.keys(action.input).length && action.writes[property] === value)?.[0];
  const pair = [making(true), making(false)];
  return pair.every(Boolean) ? pair : null;
}

function writtenBy(action, argument) {
  const forms = [`$${argument}`, `$${argument} unless 0`];
  return Object.entries(action.writes).find(([, value]) => forms.includes(value))?.[0];
}

function switchControl(device, property, [on, off], act, isMain) {
  const text = isMain ? device.title : propertyText(property, device.properties[property]);
  const element = make("button", {
    type: "button", role: "switch", class: "switch", "aria-label": isMain ? titled(text) : null,
    on: { click: async () => {
      if (element.getAttribute("aria-busy") === "true") return;
      element.setAttribute("aria-busy", "true");
      await act(element.getAttribute("aria-checked") === "true" ? off : on, {});
      element.removeAttribute("aria-busy");
    } },
  }, isMain ? null : make("span", { text }), make("span", { class: "track", "aria-hidden": "true" }));
  return {
    element,
    update(values) {
      element.setAttribute("aria-checked", String(values[property] === true));
      element.disabled = values[property] === undefined; // nobody knows which way it would go
    },
  };
}

function valueControl(device, name, argument, property, act) {
  const schema = device.actions[name].input[argument];
  const own = device.properties[property];
  const steps = (schema.maximum - schema.minimum) / (schema.step ?? (schema.type === "integer" ? 1 : stepOf(schema)));
  const few = schema.enum ?? (schema.type === "integer" && steps < MOST_CHOICES ? wholeNumbers(schema) : null);
  const send = (value) => act(name, { [argument]: value });
  const text = propertyText(property, own);
  if (few && few.length <= MOST_CHOICES) return choiceControl(text, few, { ...own, unit: "" }, property, send);
  if (schema.enum) return selectControl(text, schema, property, send);
  return steps > 0 && steps <= MOST_STEPS && own.type !== "string" ? sliderControl(text, schema, property, send) : null;
}

function stepOf(schema) {
  const range = schema.maximum - schema.minimum;
  return range > 50 ? 1 : range > 10 ? 0.5 : 0.1;
}

function wholeNumbers({ minimum, maximum, step }) {
  const found = [];
  for (let value = minimum; value <= maximum; value += step ?? 1) found.push(value);
  return found;
}

function choiceControl(text, values, schema, property, send) {
  const buttons = values.map((value) => button(titled(valueText(schema, value)), () => send(value)));
  const id = `choice-${++count}`;
  const element = make("div", { class: "row" },
    make("span", { class: "row-name", id, text }),
    make("div", { class: "segments", role: "group", "aria-labelledby": id }, ...buttons));
  return {
    element,
    update: (seen) => buttons.forEach((one, at) => one.setAttribute("aria-pressed", String(seen[property] === values[at]))),
  };
}

function selectControl(text, schema, property, send) {
  const id = `select-${++count}`;
  const output = make("span", { class: "reading" });
  const select = make("select", { id, on: { change: () => (isChosen = true) } },
    ...schema.enum.map((value) => make("option", { value, text: titled(value) })));
  const set = button("Set", () => send(select.value).then(() => (isChosen = false)), { "aria-label": `Set ${text.toLowerCase()}` });
  let isChosen = false;
  return {
    element: make("div", { class: "slider" },
      make("div", { class: "row" }, make("label", { class: "row-name", for: id, text }), output),
      make("div", { class: "pair" }, select, set)),
    update(seen) {
      output.textContent = titled(valueText(schema, seen[property]));
      if (!isChosen) select.value = seen[property] ?? "";
    },
  };
}

function sliderControl(text, schema, property, send) {
  const id = `slider-${++count}`;
  const output = make("span", { class: "reading", "aria-hidden": "true" });
  let seen, wished_ms = 0, timer = 0, sending = 0;
  const slider = make("input", {
    id, type: "range", min: schema.minimum, max: schema.maximum, step: schema.step ?? (schema.type === "integer" ? 1 : stepOf(schema)),
    on: { input: wish, change: () => later(isKey() ? QUIET_MS : 0), blur: () => timer && later(0) },
  });
  const isKey = () => slider.matches(":focus-visible") && !slider.matches(":active");
  function wish() {
    wished_ms = performance.now();
    paint(Number(slider.value), true);
  }
  function later(waitMs) {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      timer = 0;
      sending += 1;
      await send(Number(slider.value));
      sending -= 1;
      if (!timer && !sending) back();
    }, waitMs);
  }
  function back() {
    wished_ms = 0;
    if (seen !== undefined) slider.value = seen;
    paint(seen, false);
  }
  function paint(value, isWish) {
    const text = valueText(schema, value);
    const part = value === undefined ? 0 : (value - schema.minimum) / (schema.maximum - schema.minimum);
    output.textContent = text;
    slider.setAttribute("aria-valuetext", text);
    slider.style.setProperty("--part", `${100 * Math.min(1, Math.max(0, part))}%`);
    element.classList.toggle("is-wish", isWish);
  }
  const element = make("div", { class: "slider" },
    make("div", { class: "row" }, make("label", { class: "row-name", for: id, text }), output), slider);
  return {
    element,
    update(values) {
      seen = values[property];
      slider.disabled = seen === undefined && wished_ms === 0;
      const isHeld = wished_ms && (timer || sending || slider.matches(":active") || performance.now() - wished_ms < LEFT_MS);
      if (!isHeld) back();
    },
  };
}

// Return a form for an action with several arguments, or one that lasts for a time, or asks something.
function formControl(device, name, act) {
  const action = device.actions[name];
  const fields = Object.entries(action.input).map(([argument, schema]) => fieldFor(device, action, argument, schema));
  const label = actionText(device, name);
  const problem = make("p", { class: "problem", role: "alert" });
  const element = make("form", {
    class: "form", novalidate: true, "aria-label": `${titled(device.title)}: ${titled(name)}`,
    on: { submit: async (event) => {
      event.preventDefault();
      const wrong = fields.find((field) => field.problem());
      problem.textContent = wrong ? wrong.problem() : "";
      if (wrong) wrong.input.focus();
      else await act(name, Object.fromEntries(fields.map((field) => [field.argument, field.value()])));
    } },
  }, ...fields.map((field) => field.element), make("button", { type: "submit", text: label }), problem);
  return { element, update: (values) => fields.forEach((field) => field.suggest(values)) };
}

function fieldFor(device, action, argument, schema) {
  const id = `field-${++count}`;
  const property = writtenBy(action, argument);
  const isNumber = schema.type === "integer" || schema.type === "number";
  const choices = schema.enum ?? (schema.type === "boolean" ? ["true", "false"] : null);
  let isTouched = false;
  const touch = { input: () => (isTouched = true) };
  const input = choices
    ? make("select", { id, on: touch }, ...choices.map((value) => make("option", { value, text: titled(value) })))
    : make("input", {
      id, on: touch, type: isNumber ? "number" : "text", inputmode: schema.type === "integer" && schema.minimum >= 0 ? "numeric" : null,
      min: schema.minimum, max: schema.maximum, step: isNumber ? (schema.step ?? (schema.type === "integer" ? 1 : "any")) : null,
      value: isNumber ? schema.minimum : null,
    });
  const unit = argument === schema.unit ? "" : unitText(schema.unit).trim();
  const isBounded = isNumber && schema.maximum !== undefined;
  const range = isBounded ? `${numberText(schema.minimum)} to ${numberText(schema.maximum)}${unit && unitText(schema.unit)}` : "";
  const text = property ? propertyText(property, device.properties[property]) : titled(argument);
  return {
    argument,
    input,
    element: make("div", { class: "field" }, make("label", { for: id, text: unit ? `${text} (${unit})` : text, title: range || null }), input),
    suggest(values) {
      const seen = property ? values[property] : undefined;
      if (!isTouched && seen !== undefined && document.activeElement !== input) input.value = seen;
    },
    value: () => (isNumber ? Number(input.value) : schema.type === "boolean" ? input.value === "true" : input.value),
    problem() {
      if (isNumber && (input.value === "" || !input.checkValidity())) return `${text}: ${range || "a number"}.`;
      return !isNumber && input.value === "" ? `${text} is missing.` : "";
    },
  };
}

function buttonsControl(device, names, act) {
  const buttons = names.map((name) => button(actionText(device, name), () => act(name, {}), {
    class: device.actions[name].safe ? "is-safe" : null,
    "aria-label": `${titled(device.title)}: ${actionText(device, name)}`,
  }));
  return { element: make("div", { class: "buttons" }, ...buttons), update() {} };
}
