"""The agent loop: ask, think, propose calls, let the broker decide and act, answer from what was read back.

The loop itself has no engine: `run` is a generator that yields a Request and is sent a Completion, so that
one engine call can serve many cases at once (evaluation) or one (the box).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from devices.broker.broker import Outcome
from devices.site.schema import Value
from devices.site.site import Site
from devices.site.tools import Command, ToolCall, call_of, commands_of
from edge_agent.agent.caution import is_of_elsewhere, names_another, speaks_against
from edge_agent.agent.compound_requests import device_words, is_sequence, parts_of
from edge_agent.agent.doubt import Doubt, doubt_about
from edge_agent.agent.intents import IntentRecognizer
from edge_agent.agent.known import known_of
from edge_agent.agent.naming import Naming, Question, spelled
from edge_agent.agent.planned import planned_steps
from edge_agent.agent.request_facts import NOTHING_SAID, facts_of_request
from edge_agent.agent.short_wishes import without_then
from edge_agent.agent.turn import USUAL_LIMITS, Turn, TurnLimits, TurnResult, joined, told
from edge_agent.agent.undo import restoring, undo_text, undoing
from edge_agent.agent.yes_or_no import LEFT, said_yes
from edge_agent.engine.engine import Completion, ContextFull, Engine, Limits, Request
from edge_agent.grammar.grammar import Grammar
from edge_agent.wire.contract import Contract
from edge_agent.wire.markers import THEN
from edge_agent.wire.messages import (
    DONE,
    NOT_DONE,
    Message,
    State,
    before_request,
    digits_text,
    result_message,
    result_of,
    user_message,
)
from edge_agent.wire.parsing import Answer, ToolCalls, Unusable, parse_reply
from edge_agent.wire.slips import without_slips

WHAT_WAS_DONE = re.compile(
    r"\W*(?:so |and )?what (?:did|have) you (?:just |actually )?(?:do|done|changed?)(?: just now| now| then| last)?\W*",
    re.IGNORECASE,
)
NOTHING = "I changed nothing."
KNOWN = "a known sentence."  # the thought where no model was asked


class Controls(Protocol):
    """What an agent needs of a broker."""

    @property
    def site(self) -> Site:
        """The devices."""
        ...

    def state_with_ages(self) -> tuple[dict[str, dict[str, Value]], dict[str, dict[str, str]]]:
        """Return what Broker's returns."""
        ...

    def execute(self, command: Command) -> Outcome:
        """Carry out one command at most once, or say why not."""
        ...


class Agent:
    """Works one site through its broker, and remembers the conversation.

    Args:
        contract: template, system prompt and tools; the same as in training.
        broker: decides and acts.
        grammar: what a reply may look like; there is no running without one.
        clock_text: local time as HH:MM, for the prompt.
        limits: steps, tokens and time of a turn.
        ask_below: calls of a reply that the model found less probable than this (0 to 1) wait for a yes; None: none.
        recognizer: is asked first; the model is not, where it knows what is wanted.
        shots: messages of worked examples that every prompt has after the system text (few-shot prompting).
    """

    def __init__(
        self,
        contract: Contract,
        broker: Controls,
        grammar: Grammar,
        *,
        clock_text: Callable[[], str],
        limits: TurnLimits = USUAL_LIMITS,
        ask_below: float | None = None,
        recognizer: IntentRecognizer | None = None,
        shots: Sequence[Message] = (),
    ) -> None:
        self.contract = contract
        self.broker = broker
        self._grammar = grammar
        self._clock_text = clock_text
        self._limits, self._ask_below, self._recognizer = limits, ask_below or 0.0, recognizer
        self._fixed = (Message("system", contract.system_text), *shots)
        self._history: list[Message] = []
        self._naming, self._device_words = Naming(broker.site), device_words(broker.site)
        self._asked: Question | Doubt | None = None  # in the turn before
        self._did = ""  # what came of the last commands, for a person
        self._done: tuple[tuple[Command, ...], State] = ((), {})  # the last commands, and the state before them

    @property
    def prefix(self) -> str:
        """The static prompt, which every request starts with."""
        return self.contract.template.render(self._fixed, add_generation_prompt=False)

    def next_prompt_start(self) -> str:
        """Return how the next prompt begins unless a device changes until then, for an engine to prefill while idle."""
        if self.contract.words is None:  # a request begins with what the person types
            return self.contract.template.render([*self._fixed, *self._remembered()], add_generation_prompt=False)
        state, ages = self.broker.state_with_ages()
        user = user_message("", state, self._clock_text(), self.contract.words, ages)
        messages = [*self._fixed, *self._remembered(), user]
        return before_request(self.contract.template.render(messages, add_generation_prompt=False))

    def run(self, text: str) -> Generator[Request, Completion, TurnResult]:
        """Work one request: yields what the engine must complete, is sent the completion, returns the result.

        The parts of a compound request are worked one after the other. An answer to the question which device is meant
        is carried out without asking the model again. Thrown ContextFull, it forgets the older half of its turns, and
        asks again.
        """
        parts = parts_of(digits_text(text, self.contract.words), self._device_words) if self.contract.words else [text]
        if len(parts) == 1:
            return (yield from self._run(text))
        results, asked, undone, is_in_order = list[TurnResult](), None, list[str](), is_sequence(text)
        for part in parts:
            if is_in_order and not all(is_done(action.status for action in one.actions) for one in results):
                undone.append(part)
                continue
            results.append((yield from self._run(part, goes_on=any(one.actions for one in results))))
            asked, self._asked = asked or self._asked, None  # an answer is expected to the first question alone
        self._asked = asked
        return joined(text, results, undone)

    def _run(self, text: str, *, goes_on: bool = False) -> Generator[Request, Completion, TurnResult]:
        """Work one request, or a part of a compound one; `goes_on` if an earlier part of it did something."""
        ask = without_then(text) if self.contract.words else text
        deadline_s, (state, ages) = time.monotonic() + self._limits.timeout_s, self.broker.state_with_ages()
        messages = [*self._remembered(), user_message(ask, state, self._clock_text(), self.contract.words, ages)]
        words, said = self.contract.words, NOTHING_SAID
        undo, recent = self._undo(state), sorted(self._recent(len(self._history)))
        if words:
            said = facts_of_request(digits_text(ask, words), self.broker.site, words, self._done[0], recent)
        known = known_of(self.broker.site, self.contract.tools, state, ages, said, undo, recent)
        turn = Turn(without_slips(ask, words) if words else ask, messages, self._grammar.knowing(known), deadline_s)
        try:
            yield from self._work(turn)
        finally:  # also if whoever asked went away in the middle
            if turn.outcomes:
                did = self._told(turn.outcomes, turn.model_answer)
                self._did, self._done = (f"{self._did} {did}", self._done) if goes_on else (did, ((), state))
                self._note(turn.outcomes)
        if turn.stop_reason in {"answer", "question"}:
            self._history = turn.messages
        return replace(turn.result(self.broker.site, state), ask=text)

    def _work(self, turn: Turn) -> Generator[Request, Completion, None]:
        asked, self._asked = self._asked, None
        stop_reason = self._take_up(turn, asked) if asked else None
        if stop_reason is None and not turn.outcomes:
            stop_reason = self._look_back(turn) or self._recognize(turn)
        for _ in range(self._limits.model_replies):
            if stop_reason := stop_reason or (yield from self._step(turn)):
                break
        turn.stop_reason = stop_reason or "step_limit"

    def note_confirmed(self, outcomes: Sequence[Outcome]) -> None:
        """Note what came of commands of the last request that got their yes after it."""
        self._did = f"{self._did.removesuffix(NOTHING)} {told(outcomes, self.broker.site)}".strip()
        self._note(outcomes)

    def forget_done(self) -> None:
        """Note that something was done without the agent: what it did last is no longer what "undo" means."""
        self._did, self._done = "", ((), {})

    def _note(self, outcomes: Sequence[Outcome]) -> None:
        commands, before = self._done
        self._done = (*commands, *(one.command for one in outcomes if one.status == "done")), before

    def _told(self, outcomes: Sequence[Outcome], model_answer: str) -> str:
        """Return what a person hears who asks what was done: what was begun, and what is not known."""
        begun = [one for one in outcomes if one.status not in ("refused", "needs_confirmation")]
        return (told(begun, self.broker.site) or model_answer) if begun else NOTHING

    def _undo(self, state: State) -> str:
        """Return what undoes the last commands, as thoughts have it."""
        (done, before), site = self._done, self.broker.site
        of_devices = [one for one in done if one.device in site.devices]
        return undo_text(site, self.contract.tools, before, undoing(site, before, state, of_devices))

    def _look_back(self, turn: Turn) -> str | None:
        """Say what was done last, as it was read back, if that is asked; return why the turn ends, if so."""
        if not self._did or not WHAT_WAS_DONE.fullmatch(turn.ask):
            return None
        turn.say(self._did if self._did == NOTHING else f"I did this. {self._did}", "what was done.")
        return "answer"

    def _recognize(self, turn: Turn) -> str | None:
        """Carry out what a sentence that is known says; return why the turn ends, or None if no sentence is."""
        commands = self._recognizer.commands(turn.ask) if self._recognizer else ()
        if not commands:
            return None
        calls = tuple(call_of(one, self.contract.tools) for one in commands)
        statuses = self._execute(turn, ToolCalls(KNOWN, calls))
        turn.say(DONE if is_done(statuses) else NOT_DONE, KNOWN)
        return "answer"

    def _step(self, turn: Turn) -> Generator[Request, Completion, str | None]:
        """Have the model reply, and execute what it calls; return why the turn ends, or None if it goes on."""
        left_s = turn.deadline_s - time.monotonic()
        if left_s <= 0:
            return "time_limit"
        completion = yield from self._query(turn, left_s)
        reply = parse_reply(completion.text, self.contract.tools)
        turn.take(completion, reply)
        is_cut = completion.stop_reason != "end_of_turn"  # more was to come, and its end was not asked about
        if isinstance(reply, Unusable) or (is_cut and isinstance(reply, ToolCalls)):
            return "time_limit" if completion.stop_reason == "timeout" else "unusable"
        if isinstance(reply, Answer):
            if self._names_a_tool(reply.text):
                return "unsure"
            turn.say(reply.text, reply.thought)
            return "answer"
        if question := self._question(turn, reply.calls):
            self._asked = None if completion.overruled_tokens else question
            turn.ask_back(question, self.broker.site)
            return "question"
        if completion.overruled_tokens:  # 35 degrees must not become the 15 that the grammar has room for
            return "unsure"
        if doubt := self._doubt(turn.ask, reply, completion):
            self._asked = doubt
            turn.ask_back(doubt, self.broker.site)
            return "question"
        return self._carry_through(turn, reply)

    def _names_a_tool(self, text: str) -> bool:
        """Return whether an answer has the name of a tool for devices: "Lock_lock is on." is for no one's ears."""
        said = set(re.findall(r"\w+_\w+", text.casefold()))
        return any(tool.devices and tool.name.casefold() in said for tool in self.contract.tools)

    def _carry_through(self, turn: Turn, reply: ToolCalls) -> str | None:
        """Carry out a reply, and the steps that its thought names after it; return why the turn ends.

        None: the thought has not named all, and the model is asked what comes next.
        """
        steps = planned_steps(reply, turn.grammar.known, self.contract.tools)
        statuses = self._execute(turn, reply)
        for number, step in enumerate(steps[1:], start=1):
            if not is_done(statuses):
                break
            thought = THEN.join([", ".join(statuses), *(one.text for one in steps[number:])])
            statuses = self._execute(turn, ToolCalls(f"{thought}.", step.calls))
        if not steps:
            return None
        turn.say(DONE if is_done(statuses) else NOT_DONE, f"{', '.join(statuses)}.")
        return "answer"

    def _doubt(self, ask: str, reply: ToolCalls, completion: Completion) -> Doubt | None:
        """Return what to ask before calls are carried out: the model is not sure, or the words speak against it."""
        commands = [command for call in reply.calls for command in self._commands(call)]
        devices = [one.device for one in commands if one.device in self.broker.site.devices]
        naming = self._naming
        is_against = bool(devices) and (
            speaks_against(ask, devices, self.broker.site.devices, naming.words, self._put_back(commands))
            or names_another(ask, devices, vocabulary := naming.vocabulary(devices), naming.words)
            or is_of_elsewhere(ask, devices, vocabulary, naming.words)
        )
        if completion.probability >= self._ask_below and not is_against:
            return None
        return doubt_about(self.broker.site, reply, commands)

    def _put_back(self, commands: Iterable[Command]) -> set[str]:
        """Return the devices that commands make again what they were before the last ones."""
        done, before = self._done
        pairs = [(one, last) for one in commands for last in done if last.device == one.device]
        state = self.broker.state_with_ages()[0] if pairs else {}
        return {one.device for one, last in pairs if restoring(self.broker.site, before, state, last) == one}

    def _question(self, turn: Turn, calls: Iterable[ToolCall]) -> Question | None:
        """Return what must be asked back before calls are carried out; an area or a scene is always clear."""
        commands, clear = [], []
        for call in calls:
            found = [one for one in self._commands(call) if one.device in self.broker.site.devices]
            commands += found
            clear += [] if "device" in call.arguments else found
        return self._naming.question(turn.ask, commands, self._recent(), clear)

    def _recent(self, turns: int = 1) -> set[str]:
        """Return the devices that the turn before called or spoke of; of several, the last that did either."""
        starts, end = [place for place, one in enumerate(self._history) if one.role == "user"], len(self._history)
        for start in starts[: -turns - 1 : -1]:
            if found := self._spoken_of(self._history[start:end]):
                return found
            end = start
        return set()

    def _spoken_of(self, messages: Sequence[Message]) -> set[str]:
        devices = self.broker.site.devices
        called = {command.device for one in messages for call in one.calls for command in self._commands(call)}
        said = " ".join(f"{one.text} {one.thought}" for one in messages if one.role == "assistant")
        named = {name for name in re.findall(r"\bis (\w+)", said) if name in devices}
        return (called & devices.keys()) | named | {name for name, device in devices.items() if device.title in said}

    def _take_up(self, turn: Turn, asked: Question | Doubt) -> str | None:
        """Carry out what was asked about, as the answer has it; return why the turn ends, if so."""
        return self._confirmed(turn, asked) if isinstance(asked, Doubt) else self._chosen(turn, asked)

    def _confirmed(self, turn: Turn, doubt: Doubt) -> str | None:
        is_yes = said_yes(turn.ask)
        if is_yes:
            return self._carry_through(turn, doubt.reply)
        if is_yes is False:
            turn.say(LEFT, "not meant, nothing to do.")
            return "answer"
        return None

    def _chosen(self, turn: Turn, asked: Question) -> str | None:
        if not (chosen := self._naming.answered(asked, turn.ask)):
            return None
        commands, settled = asked.settle(chosen)
        if question := self._naming.question(asked.ask, commands, (), settled):
            self._asked = question
            turn.ask_back(question, self.broker.site)
            return "question"
        calls = tuple(call_of(command, self.contract.tools) for command in commands)
        self._execute(turn, ToolCalls(f"{spelled(turn.ask)} is {' and '.join(chosen)}.", calls))
        return None

    def _query(self, turn: Turn, left_s: float) -> Generator[Request, Completion, Completion]:
        """Have the model complete the prompt, without the oldest turns if they do not fit."""
        while True:
            prompt = self.contract.template.render([*self._fixed, *turn.messages], add_generation_prompt=True)
            try:
                return (yield Request(prompt, turn.grammar, Limits(self._limits.reply_tokens, left_s)))
            except ContextFull:
                if len(shorter := without_oldest_half(turn.messages)) == len(turn.messages):
                    raise
                turn.messages, turn.has_forgotten = shorter, True

    def _execute(self, turn: Turn, reply: ToolCalls) -> list[str]:
        """Carry out the calls of a reply, and show the model what came of them; return the status of each."""
        results = [self._result_of(turn, call) for call in reply.calls]
        turn.messages.append(Message("assistant", "", reply.thought, reply.calls))
        turn.messages.append(result_message(results))
        turn.grammar = self._grammar  # the state that was shown is not the state any more
        return [str(result.get("status", "")) for result in results]  # what a function answers may have none

    def ask(self, engine: Engine, text: str) -> TurnResult:
        """Work one request with one engine."""
        turn = self.run(text)
        try:
            request = next(turn)
            while True:
                try:
                    completion = engine.generate([request])[0]
                except ContextFull as error:
                    request = turn.throw(error)
                else:
                    request = turn.send(completion)
        except StopIteration as stop:
            result: TurnResult = stop.value
            return result

    def _remembered(self) -> list[Message]:
        """Return the last turns, whole ones; of too many, half are forgotten at once.

        One forgotten turn has the engine evaluate all others anew: that must not come with every request.
        """
        while len(self._history) > self._limits.remembered_messages:
            self._history = without_oldest_half(self._history)
        return list(self._history)

    def _result_of(self, turn: Turn, call: ToolCall) -> dict[str, Value]:
        """Carry out what a call stands for; return its result for the model."""
        return result_of([self._carry_out(turn, command).result for command in self._commands(call)])

    def _commands(self, call: ToolCall) -> list[Command]:
        commands = commands_of(call, self.contract.tools)
        assert not isinstance(commands, str), commands  # parse_reply lets no such call through
        return commands

    def _carry_out(self, turn: Turn, command: Command) -> Outcome:
        """Carry out a command, unless the same one was done in this turn: a model that loops repeats nothing."""
        outcome = next((done for done in turn.outcomes if done.command == command), None)
        if outcome is None or outcome.status != "done":
            outcome = self.broker.execute(command)
            turn.outcomes.append(outcome)
        return outcome


def is_done(statuses: Iterable[str]) -> bool:
    """Return whether all of some statuses say that it was done."""
    return all(status == "done" for status in statuses)


def without_oldest_half(messages: list[Message]) -> list[Message]:
    """Return messages from the middle one of the user's on; all of them if there is only one."""
    starts = [number for number, message in enumerate(messages) if message.role == "user"]
    return messages[starts[len(starts) // 2] :]
