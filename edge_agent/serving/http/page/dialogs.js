// The modal questions: a yes to an action, why something was done, and the box's token.

import { get, keepToken, onTokenNeeded, token } from "./api.js";
import { byId, make } from "./dom.js";
import { secondsText, titled } from "./words.js";

let last = Promise.resolve(); // questions come one after the other
let asked = null; // the promise of a token, shared by all who wait for it

// Show a dialog; Stop moves into it, for everything outside is out of reach meanwhile.
function open(dialog, focus) {
  const before = document.activeElement;
  dialog.append(byId("stop"));
  dialog.addEventListener("close", () => {
    const upper = [...document.querySelectorAll("dialog[open]")].at(-1);
    (upper ?? byId("stop-place")).append(byId("stop"));
    if (before?.isConnected) before.focus();
  }, { once: true });
  dialog.showModal();
  focus.focus();
}

// Ask for a yes. Returns "yes", "no", or "late" when the time for it was over.
export function askPerson(confirmation) {
  const until = performance.now() + 1000 * confirmation.expires_in_s;
  const answer = last.then(() => ask(confirmation, until));
  last = answer;
  return answer;
}

function ask({ effect, question }, until) {
  const dialog = byId("confirm");
  const left = () => (until - performance.now()) / 1000;
  if (left() <= 0) return "late";
  byId("confirm-effect").textContent = effect.charAt(0).toUpperCase() + effect.slice(1);
  byId("confirm-question").textContent = question;
  const count = () => {
    byId("confirm-left").textContent = secondsText(left());
    if (left() <= 0) dialog.close("late");
  };
  count();
  const timer = setInterval(count, 250);
  dialog.returnValue = "no"; // also what Esc and Stop leave
  open(dialog, byId("confirm-no"));
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      clearInterval(timer);
      resolve(dialog.returnValue);
    }, { once: true });
  });
}

export async function showWhy(command) {
  const text = byId("why-text");
  byId("why-title").textContent = `Why, command #${command}`;
  text.replaceChildren(make("p", { class: "quiet", text: "Loading…" }));
  open(byId("why"), byId("why-close"));
  try {
    text.replaceChildren(...explanation((await get(`why/${command}`)).text));
  } catch (error) {
    text.replaceChildren(make("p", { text: `${error.message} ${error.hint}` }));
  }
}

// Return an explanation's lines as a list of what was looked at and what was found.
function explanation(lines) {
  const [first, ...rest] = lines.split("\n");
  const list = make("dl", { class: "reasons" });
  for (const line of rest) {
    const [, rule, found] = /^\s*(\S.*?)(?:\s{2,}(.*))?$/.exec(line) ?? [];
    if (rule === undefined) continue;
    const isNo = found?.startsWith("NO: ");
    list.append(
      make("dt", { text: titled(rule) }),
      make("dd", { text: isNo ? found.slice(4) : (found ?? ""), class: isNo ? "is-no" : null }),
    );
  }
  return [make("p", { class: "proposal", text: first.replace(/\s{2,}/g, " ") }), list];
}

function askForToken(used) {
  asked ??= new Promise((resolve) => {
    if (token() && token() !== used) return resolve(); // another request has asked meanwhile
    byId("token-problem").textContent = used ? "The box does not know this token." : "";
    byId("token-value").value = "";
    open(byId("token"), byId("token-value"));
    byId("token-form").onsubmit = (event) => {
      event.preventDefault();
      keepToken(byId("token-value").value.trim());
      byId("token").close();
      resolve();
    };
  }).finally(() => (asked = null));
  return asked;
}

export function closeQuestions() {
  byId("confirm").close("no");
  byId("why").close();
}

export function startDialogs() {
  onTokenNeeded(askForToken);
  byId("confirm-no").addEventListener("click", () => byId("confirm").close("no"));
  byId("confirm-yes").addEventListener("click", () => byId("confirm").close("yes"));
  byId("why-close").addEventListener("click", () => byId("why").close());
  byId("token").addEventListener("cancel", (event) => event.preventDefault()); // without it there is nothing to see
}
