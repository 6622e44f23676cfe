// The conversation: a request, the answer, and what was done.

import { Session, failureText } from "./api.js";
import { showWhy } from "./dialogs.js";
import { button, byId, make } from "./dom.js";
import { store } from "./store.js";
import { settle } from "./turns.js";
import { STATUS, commandText, titled } from "./words.js";

const MOST_MESSAGES = 200;
const session = new Session();
let onItsWay = null;

export function startTalk() {
  byId("talk-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("ask").value.trim();
    if (!text || onItsWay) return;
    byId("ask").value = "";
    ask(text);
  });
  byId("give-up").addEventListener("click", () => {
    onItsWay?.abort();
    byId("ask").focus();
  });
}

// Show what one could say, until something is said.
export function welcome() {
  if (byId("messages").childElementCount) return;
  byId("welcome").replaceChildren(
    make("p", { class: "welcome-title", text: "What shall be done?" }),
    make("p", { class: "quiet", text: "Speak of the devices in your own words, such as:" }),
    make("ul", { class: "examples" }, ...examples().map((text) => make("li", {}, button(text, () => ask(text))))),
  );
}

function examples() {
  const found = [];
  const first = (kind, say) => {
    const device = store.site.devices.find((one) => one.kind === kind);
    if (device) found.push(say(device.title));
  };
  first("light", (title) => `Turn on the ${title}`);
  first("cover", (title) => `Close the ${title}`);
  first("lock", (title) => `Lock the ${title}`);
  first("climate", (title) => `How warm is it at the ${title}?`);
  return found.slice(0, 3);
}

function choose(text) {
  if (!onItsWay) ask(text);
}

async function ask(text) {
  for (const list of document.querySelectorAll(".answers")) list.remove(); // what was asked is answered, or passed over
  onItsWay = new AbortController();
  byId("welcome").replaceChildren();
  add("mine", make("p", { text }));
  const working = add("working", make("p", {}, make("span", { class: "dots", "aria-hidden": "true" }), "Working…"));
  setBusy(true);
  try {
    const turn = await session.do("ask", { text }, onItsWay);
    working.remove();
    setBusy(false);
    await settle(session, turn, showTurn);
  } catch (error) {
    add("theirs is-problem", make("p", { text: failureText(error) }));
  } finally {
    working.remove();
    setBusy(false);
  }
}

function setBusy(isBusy) {
  const hadFocus = document.activeElement === byId("give-up");
  if (!isBusy) onItsWay = null;
  byId("send").hidden = isBusy;
  byId("give-up").hidden = !isBusy;
  if (hadFocus && !isBusy) byId("ask").focus();
}

function showTurn(turn) {
  const parts = [make("p", { text: turn.answer })];
  if (turn.actions.length) parts.push(make("ul", { class: "chips" }, ...turn.actions.map(chip)));
  if (turn.choices?.length) {
    const choices = turn.choices.map((text) => make("li", {}, button(text, () => choose(text))));
    parts.push(make("ul", { class: "examples answers", "aria-label": "Answers" }, ...choices));
  }
  if (turn.has_forgotten) parts.push(make("p", { class: "aside", text: "This conversation became too long: its beginning is forgotten." }));
  if (turn.thought) {
    parts.push(make("details", { class: "thought" }, make("summary", { text: "Thought" }), make("p", { text: turn.thought.trim() })));
  }
  add("theirs", ...parts);
}

function chip(one) {
  const device = store.devices.get(one.device);
  const what = commandText(device, one.action, one.input);
  const title = titled(device?.title ?? one.device);
  return make("li", { class: `chip is-${one.status}` },
    make("span", { class: "chip-what", text: `${title}: ${what.charAt(0).toLowerCase()}${what.slice(1)}` }),
    make("span", { class: "chip-status", text: STATUS[one.status] ?? one.status }),
    button("Why?", () => showWhy(one.command), { class: "link", "aria-label": `Why? ${title}: ${what}` }));
}

function add(kind, ...parts) {
  const list = byId("messages");
  const said = kind === "mine" ? "You said:" : kind === "working" ? "" : "The box:";
  const item = make("div", { class: `message ${kind}` }, said && make("span", { class: "unseen", text: said }), ...parts);
  list.append(item);
  while (list.childElementCount > MOST_MESSAGES) list.firstElementChild.remove();
  byId("talk-scroll").scrollTop = byId("talk-scroll").scrollHeight;
  return item;
}
