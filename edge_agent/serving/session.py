"""One client's conversation with a served box: requests in words, commands, and what waits for a yes.

A confirmation belongs to the session that asked, to one command with its arguments, once, for CONFIRMATION_S. The yes
is given by its id, or in words as the next request ("yes, please"); any other request drops what waits.

Does not guard against: a client that gives another its session's id.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from devices.broker.broker import Broker, Outcome
from devices.broker.policy import CONFIRMATION_S, STOPPED
from devices.errors import RefusedError, UsageError
from devices.site.describe import reports_text
from devices.site.schema import Value
from devices.site.site import Site
from devices.site.tools import Command, ToolCall, action_of, commands_of
from edge_agent.agent.agent import Agent
from edge_agent.agent.asked import new_conversation, note_asked
from edge_agent.agent.simulation import Simulation
from edge_agent.agent.yes_or_no import LEFT, said_yes
from edge_agent.engine.engine import Completion
from edge_agent.serving.engine_queue import Cancellation, Cancelled, EngineQueue


@dataclass(frozen=True)
class Confirmation:
    """What waits for a yes.

    Attributes:
        id: unguessable.
        command: what will be carried out.
        effect: what it will make so, as the broker renders it.
        question: the broker's sentence that asks for it.
        expires_s: on time.monotonic.
    """

    id: str
    command: Command
    effect: str
    question: str
    expires_s: float


@dataclass(frozen=True)
class Turn:
    """What came of one request, yes, or command.

    `outcomes` are the broker's, in order; `confirmations` are those that now wait; `stop_reason` and
    `choices` as TurnResult's.
    """

    answer: str
    outcomes: tuple[Outcome, ...] = ()
    confirmations: tuple[Confirmation, ...] = ()
    thought: str = ""
    stop_reason: str = "answer"
    has_forgotten: bool = False
    completions: tuple[Completion, ...] = ()
    seconds: float = 0.0
    choices: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; times in seconds."""
        return {
            "answer": self.answer,
            "thought": self.thought,
            "actions": [
                {
                    "command": one.id,
                    "device": one.command.device,
                    "action": one.command.action,
                    "input": one.command.input,
                    "status": one.status,
                    "report": one.report,
                    "result": one.result,
                }
                for one in self.outcomes
            ],
            "confirmations": [
                {
                    "id": one.id,
                    "device": one.command.device,
                    "action": one.command.action,
                    "input": one.command.input,
                    "effect": one.effect,
                    "question": one.question,
                    "expires_in_s": max(0, round(one.expires_s - time.monotonic())),
                }
                for one in self.confirmations
            ],
            "stop_reason": self.stop_reason,
            "has_forgotten": self.has_forgotten,
            "choices": list(self.choices),
            "seconds": round(self.seconds, 4),
        }


@dataclass
class _SessionBroker:
    """The broker as one session's agent sees it: what needs a yes is noted, and nothing is begun for who went away."""

    broker: Broker
    stops: int = 0  # when the request came
    cancellation: Cancellation = field(default_factory=Cancellation)
    outcomes: list[Outcome] = field(default_factory=list)
    wanted: list[Confirmation] = field(default_factory=list)

    @property
    def site(self) -> Site:
        return self.broker.site

    def state_with_ages(self) -> tuple[dict[str, dict[str, Value]], dict[str, dict[str, str]]]:
        return self.broker.state_with_ages()

    def execute(self, command: Command) -> Outcome:
        self.cancellation.require()
        if self.broker.stops != self.stops:
            raise Cancelled(f"I did nothing more, because {STOPPED}")
        effects: list[str] = []

        def note(effect: str) -> bool:
            effects.append(effect)
            return False

        outcome = self.broker.execute(command, note)
        self.outcomes.append(outcome)
        if effects:
            until_s = time.monotonic() + CONFIRMATION_S
            self.wanted.append(Confirmation(secrets.token_urlsafe(18), command, effects[0], outcome.report, until_s))
        return outcome


class Session:
    """A conversation. Its requests are worked one after the other; for any thread.

    Args:
        simulation: contract, grammar and limits of the site.
        broker: decides and acts.
        queue: the engine.
        client: who it is of, for the engine's turns.
        clock_text: local time as HH:MM.
    """

    def __init__(
        self, simulation: Simulation, broker: Broker, queue: EngineQueue, client: str, clock_text: Callable[[], str]
    ) -> None:
        self.id = secrets.token_urlsafe(18)
        self.client = client
        self.used_s = time.monotonic()
        self._queue, self._tools = queue, simulation.contract.tools
        self._broker = _SessionBroker(broker)
        self._agent = Agent(
            simulation.contract,
            self._broker,
            simulation.grammar,
            clock_text=clock_text,
            limits=simulation.limits,
            ask_below=simulation.ask_below,
            recognizer=simulation.recognizer,
        )
        self._lock, self._conversation = threading.Lock(), new_conversation()
        self._waiting: tuple[Confirmation, ...] = ()

    @property
    def is_busy(self) -> bool:
        """Whether a request is being worked."""
        return self._lock.locked()

    @property
    def is_waiting(self) -> bool:
        """Whether something waits for a yes."""
        return bool(self._waiting)

    def ask(self, text: str, cancellation: Cancellation | None = None) -> Turn:
        """Work one request in words.

        Raises:
            Cancelled: who asked went away, or everything was stopped; what was not begun is not done.
            Busy, UnavailableError: the engine.
            UsageError: it is empty.
        """
        if not text.strip():
            raise UsageError("the request is empty")
        with self._lock:
            self.used_s = started_s = time.monotonic()
            waiting = self._take_waiting()
            if waiting and (is_yes := said_yes(text)) is not None:
                return self._carry_out(waiting) if is_yes else Turn(LEFT)
            given_up = cancellation or Cancellation()
            self._begin(given_up)
            result = self._agent.ask(self._queue.seat(self.client, given_up), text.strip())
            note_asked(self._broker.broker, self._conversation, result)
            self._queue.prefill_idle(self._agent.next_prompt_start)
            turn = self._turn(
                result.answer,
                result.thought,
                result.stop_reason,
                result.has_forgotten,
                result.completions,
                time.monotonic() - started_s,
            )
            return replace(turn, choices=result.choices)

    def command(self, command: Command, cancellation: Cancellation | None = None) -> Turn:
        """Carry out one command through the broker, as from a switch."""
        return self.commands([command], cancellation)

    def commands(self, commands: Sequence[Command], cancellation: Cancellation | None = None) -> Turn:
        """Carry out commands one after the other; what needs a yes waits for it."""
        with self._lock:
            self.used_s = started_s = time.monotonic()
            self._take_waiting()
            self._begin(cancellation or Cancellation())
            self._agent.forget_done()
            for one in commands:
                self._broker.execute(one)
            return self._turn(self._reports(self._broker.outcomes), seconds=time.monotonic() - started_s)

    def call(self, name: str, arguments: Mapping[str, Any], cancellation: Cancellation | None = None) -> Turn:
        """Carry out a call of one of the site's tools. Raises UsageError if it does not fit the tool's schema."""
        found = commands_of(ToolCall(name, dict(arguments)), self._tools)
        if isinstance(found, str):
            raise UsageError(found)
        return self.commands(found, cancellation)

    def confirm(self, id_: str, *, is_yes: bool) -> Turn:
        """Carry out what waits under an id, or leave it.

        Raises:
            RefusedError: nothing of this session waits under it (any more).
        """
        with self._lock:
            self.used_s = time.monotonic()
            found = [one for one in self._take_waiting(but=id_) if one.id == id_]
            if not found:
                raise RefusedError("nothing waits for this yes", hint="ask again: a yes counts once, for 60 seconds")
            return self._carry_out(found) if is_yes else Turn(LEFT)

    def _take_waiting(self, but: str = "") -> list[Confirmation]:
        """Return what waits and is not too old; none of it waits any more, or of several only that `id_` is taken."""
        now_s = time.monotonic()
        found = [one for one in self._waiting if one.expires_s >= now_s]
        self._waiting = tuple(one for one in found if but and one.id != but)
        return found

    def _carry_out(self, confirmed: Sequence[Confirmation]) -> Turn:
        outcomes = [
            self._broker.broker.execute(one.command, lambda effect, wanted=one.effect: effect == wanted)  # type: ignore[misc]
            for one in confirmed
        ]
        self._agent.note_confirmed(outcomes)
        return Turn(self._reports(outcomes), tuple(outcomes), self._waiting)

    def _begin(self, cancellation: Cancellation) -> None:
        self._broker.cancellation, self._broker.stops = cancellation, self._broker.broker.stops
        self._broker.outcomes, self._broker.wanted = [], []

    def _turn(
        self,
        answer: str,
        thought: str = "",
        stop_reason: str = "answer",
        has_forgotten: bool = False,
        completions: tuple[Completion, ...] = (),
        seconds: float = 0.0,
    ) -> Turn:
        self._waiting = tuple(self._broker.wanted)
        outcomes = tuple(self._broker.outcomes)
        return Turn(answer, outcomes, self._waiting, thought, stop_reason, has_forgotten, completions, seconds)

    def _reports(self, outcomes: Sequence[Outcome]) -> str:
        return reports_text([(self._title(one.command), one.report) for one in outcomes])

    def _title(self, command: Command) -> str:
        try:
            return action_of(self._broker.site, command)[0].title
        except KeyError:  # a door's client named what is not there, and the report says so
            return command.device
