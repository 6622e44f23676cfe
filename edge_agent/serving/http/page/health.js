// How the box is: asked for while somebody looks.

import { get } from "./api.js";
import { byId, make } from "./dom.js";
import { store } from "./store.js";
import { durationText, numberText, titled } from "./words.js";

const EVERY_MS = 5000;

export function startHealth() {
  setInterval(() => document.body.dataset.view === "health" && !document.hidden && loadHealth(), EVERY_MS);
}

export async function loadHealth() {
  try {
    show(await get("health"));
  } catch (error) {
    if (!byId("health").querySelector(".cards")) byId("health").replaceChildren(make("p", { class: "quiet", text: error.message }));
  }
}

function show(health) {
  const { engine } = health;
  const isOk = health.status === "ok";
  const silent = health.silent_devices.map((name) => titled(store.devices.get(name)?.title ?? name));
  const perSecond = engine.busy_s > 0 ? `${numberText(engine.tokens / engine.busy_s)} tokens a second` : "no reply yet";
  const reused = engine.prompt_tokens > 0 ? `${Math.round((100 * engine.reused_tokens) / engine.prompt_tokens)}\u00a0%` : "–";
  byId("health").replaceChildren(
    make("p", { class: `verdict ${isOk ? "is-done" : "is-failed"}` },
      make("span", { class: "banner-mark", "aria-hidden": "true" }),
      isOk ? "Everything works." : "Something does not work: see below."),
    make("div", { class: "cards" },
      card("Box", [
        ["Site", titled(health.title)], ["Model", health.model], ["Devices", health.is_live ? "real" : "simulated"],
        ["Mode", titled(health.mode)], ["Running for", durationText(health.uptime_s)], ["Conversations", health.sessions],
      ]),
      card("Engine", [
        ["Replies", engine.replies], ["Speed", perSecond], ["Waiting now", engine.waiting], ["Given up", engine.cancelled],
        ["Prompt reused", reused], ["Context", `${engine.context_tokens} tokens`],
      ]),
      card("Doors", Object.entries(health.doors).map(([name, how]) => [name.toUpperCase(), how, how === "open" ? "" : "is-no"])),
      card("Devices", [
        ["Known", health.devices], ["Not answering", silent.join(", ") || "none", silent.length ? "is-no" : ""],
        ["Timed actions running", health.owed_endings],
      ])),
    problems(health.problems));
}

function card(title, rows) {
  return make("section", { class: "card" }, make("h3", { text: title }),
    make("dl", {}, ...rows.map(([name, value, kind]) =>
      make("div", {}, make("dt", { text: name }), make("dd", { text: String(value), class: kind || null })))));
}

function problems(lines) {
  if (!lines.length) return make("p", { class: "quiet", text: "No problems were told." });
  return make("section", { class: "card" }, make("h3", { text: "Problems, the latest first" }),
    make("ul", { class: "problems" }, ...[...lines].reverse().map((text) => make("li", { text }))));
}
