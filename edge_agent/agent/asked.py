"""What people asked and what came of it, in the journal: real use, of which evaluation cases can be made.

It stays on the box, like the rest of the journal. `edgewright cases from-journal` reads it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from devices.broker.broker import Broker
from devices.broker.journal import Event
from devices.errors import UnavailableError
from edge_agent.agent.turn import TurnResult
from edge_agent.wire.messages import State


@dataclass(frozen=True)
class Asked:
    """A request of a conversation: what was so before, what was answered, and each action as in `ActionRecord`."""

    conversation: str
    time_s: float
    request: str
    answer: str
    state: State
    actions: tuple[dict[str, Any], ...]


def new_conversation() -> str:
    """Return a name for a conversation that no other has."""
    return secrets.token_hex(4)


def note_asked(broker: Broker, conversation: str, result: TurnResult) -> None:
    """Write a request into the broker's journal; what needs no journal is answered where that cannot be."""
    actions = [
        {"device": one.device, "action": one.action, "input": one.input, "status": one.status} for one in result.actions
    ]
    with suppress(UnavailableError):
        broker.note_request(
            {
                "conversation": conversation,
                "request": result.ask,
                "answer": result.answer,
                "state": result.state,
                "actions": actions,
            }
        )


def asked_in(events: Iterable[Event]) -> list[Asked]:
    """Return the requests among a journal's events, in their order."""
    found = []
    for event in events:
        if event.event == "ASKED":
            body = event.body
            actions = tuple(body["actions"])
            found.append(
                Asked(body["conversation"], event.time_s, body["request"], body["answer"], body["state"], actions)
            )
    return found
