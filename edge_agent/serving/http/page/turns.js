// From a request to what came of it, with the questions in between.

import { Session } from "./api.js";
import { askPerson } from "./dialogs.js";
import { applyResults, refreshState } from "./store.js";

const MOST_COMMANDS = 2; // on their way at once: a browser opens six connections to a server, and Stop must have one
export const LATE = "The time to say yes is over. Nothing was changed.";

const idle = Array.from({ length: MOST_COMMANDS }, () => new Session());
const waiting = [];

// Carry out one command of a control. `show` gets every turn: of the command, then of each yes or no.
export async function command(device, action, input, show) {
  const session = idle.pop() ?? (await new Promise((resolve) => waiting.push(resolve)));
  try {
    await settle(session, await session.do("command", { device, action, input }), show);
  } finally {
    const next = waiting.shift();
    if (next) next(session);
    else idle.push(session);
  }
}

// Show a turn, ask for every yes that it waits for, and give the answers to the session that asked.
export async function settle(session, turn, show) {
  noteTurn(turn);
  show(turn);
  for (const one of turn.confirmations) {
    const said = await askPerson(one);
    if (said === "late") {
      show({ answer: LATE, actions: [], confirmations: [] });
      continue;
    }
    const next = await session.do("confirm", { id: one.id, yes: said === "yes" });
    noteTurn(next);
    show({ ...next, confirmations: [] });
  }
}

function noteTurn(turn) {
  applyResults(turn.actions);
  if (turn.actions.length) refreshState().catch(() => {}); // a lost connection has its own banner
}
