"""The agent loop: ask, think, propose calls, let the broker decide and act, answer from what was read back.

The loop itself has no engine: `run` is a generator that yields a Request and is sent a Completion, so that
one engine call can serve many cases at once (evaluation) or one (the box).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from devices.broker.broker import Outcome
from devices.site.describe import reports_text
from devices.site.schema import Value
from devices.site.site import Site
from devices.site.tools import Command, ToolCall, action_of, call_of, commands_of
from edge_agent.agent.caution import speaks_against
from edge_agent.agent.doubt import Doubt, doubt_about
from edge_agent.agent.intents import IntentRecognizer
from edge_agent.agent.naming import Naming, Question, spelled
from edge_agent.agent.number_arguments import number_arguments, truths_of
from edge_agent.agent.yes_or_no import LEFT, said_yes
from edge_agent.engine.engine import Completion, ContextFull, Engine, Limits, Request
from edge_agent.grammar.grammar import Grammar
from edge_agent.wire.contract import Contract
from edge_agent.wire.messages import Message, State, before_request, facts_of, result_message, result_of, user_message
from edge_agent.wire.parsing import Answer, Reply, ToolCalls, Unusable, parse_reply

NO_ANSWER = "I could not work that out, so I stopped."
WHAT_WAS_DONE = re.compile(
    r"\W*(?:so |and )?what (?:did|have) you (?:just |actually )?(?:do|done|changed?)(?: just now| now| then| last)?\W*",
    re.IGNORECASE,
)
KNOWN = "a known sentence."  # the thought where no model was asked
NOT_SURE = "I am not sure what you want, so I did not do it."


@dataclass(frozen=True)
class ActionRecord:
    """A proposed command and what came of it."""

    device: str
    action: str
    input: dict[str, Value]
    status: str  # done, refused, needs_confirmation, failed, unknown
    report: str  # the broker's own sentence, from the read-back

    @classmethod
    def of(cls, outcome: Outcome) -> ActionRecord:
        """Return what an outcome of the broker comes to."""
        command = outcome.command
        return cls(command.device, command.action, command.input, outcome.status, outcome.report)


@dataclass(frozen=True)
class TurnResult:
    """What one request led to.

    `answer` is what the person sees: made from read-backs where something was proposed, or a question of
    which device is meant, else the model's. What a function answered is told by the model, what was not done never.
    `model_answer` is the model's own last words ("" if it had none). `has_forgotten` says that the context was full and
    the older turns of the conversation were dropped; `state` is what the model was shown; `choices` are
    short answers to the question that was asked back, if there are few.
    """

    ask: str
    answer: str
    model_answer: str
    thought: str
    actions: tuple[ActionRecord, ...]
    replies: tuple[Reply, ...]
    completions: tuple[Completion, ...]
    stop_reason: str  # answer, question, unsure, unusable, step_limit, time_limit
    has_forgotten: bool = False
    state: State = field(default_factory=dict)
    choices: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether every reply could be parsed and fitted the schemas."""
        return not any(isinstance(reply, Unusable) for reply in self.replies)

    @property
    def confidence(self) -> float | None:
        """How probable the model found what it called, all replies together: 0 to 1; None if it called nothing."""
        called = [
            completion.probability
            for completion, reply in zip(self.completions, self.replies, strict=True)
            if isinstance(reply, ToolCalls)
        ]
        return math.prod(called) if called else None


@dataclass(frozen=True)
class TurnLimits:
    """What one request may cost."""

    model_replies: int = 6
    reply_tokens: int = 240
    timeout_s: float = 60.0
    remembered_messages: int = 16  # when there are more, half of the turns are forgotten


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
    """

    def __init__(
        self,
        contract: Contract,
        broker: Controls,
        grammar: Grammar,
        *,
        clock_text: Callable[[], str],
        limits: TurnLimits = TurnLimits(),
        ask_below: float | None = None,
        recognizer: IntentRecognizer | None = None,
    ) -> None:
        self.contract = contract
        self.broker = broker
        self._grammar = grammar
        self._clock_text = clock_text
        self._limits, self._ask_below, self._recognizer = limits, ask_below or 0.0, recognizer
        self._history: list[Message] = []
        self._naming = Naming(broker.site)
        self._asked: Question | Doubt | None = None  # in the turn before
        self._did = ""  # what came of the last commands

    @property
    def prefix(self) -> str:
        """The static prompt, which every request starts with."""
        return self.contract.template.render([self._system], add_generation_prompt=False)

    @property
    def _system(self) -> Message:
        return Message("system", self.contract.system_text)

    def next_prompt_start(self) -> str:
        """Return how the next prompt begins unless a device changes until then, for an engine to prefill while idle."""
        if self.contract.words is None:  # a request begins with what the person types
            return self.contract.template.render([self._system, *self._remembered()], add_generation_prompt=False)
        state, ages = self.broker.state_with_ages()
        user = user_message("", state, self._clock_text(), self.contract.words, ages)
        messages = [self._system, *self._remembered(), user]
        return before_request(self.contract.template.render(messages, add_generation_prompt=False))

    def run(self, ask: str) -> Generator[Request, Completion, TurnResult]:
        """Work one request: yields what the engine must complete, is sent the completion, returns the result.

        An answer to the question which device is meant is carried out without asking the model again.
        Thrown ContextFull, it forgets the older half of its turns, and asks again.
        """
        deadline_s, (state, ages) = time.monotonic() + self._limits.timeout_s, self.broker.state_with_ages()
        messages = [*self._remembered(), user_message(ask, state, self._clock_text(), self.contract.words, ages)]
        numbers = number_arguments(self.broker.site, self.contract.tools, state)
        truths = truths_of(self.broker.site, state)
        turn = _Turn(ask, messages, self._grammar.with_facts(facts_of(state, ages), numbers, truths), deadline_s)
        asked, self._asked = self._asked, None
        stop_reason = self._take_up(turn, asked) if asked else None
        if stop_reason is None and not turn.outcomes:
            stop_reason = self._look_back(turn) or self._recognize(turn)
        for _ in range(self._limits.model_replies):
            if stop_reason := stop_reason or (yield from self._step(turn)):
                break
        turn.stop_reason = stop_reason or "step_limit"
        if turn.stop_reason in {"answer", "question"}:
            self._history = turn.messages
        result = turn.result(self.broker.site, state)
        self._did = result.answer if turn.outcomes else self._did
        return result

    def _look_back(self, turn: _Turn) -> str | None:
        """Say what was done last, as it was read back, if that is asked; return why the turn ends, if so."""
        if not self._did or not WHAT_WAS_DONE.fullmatch(turn.ask):
            return None
        turn.model_answer = f"I did this. {self._did}"
        turn.messages.append(Message("assistant", turn.model_answer, "what was done."))
        return "answer"

    def _recognize(self, turn: _Turn) -> str | None:
        """Carry out what a sentence that is known says; return why the turn ends, or None if no sentence is."""
        commands = self._recognizer.commands(turn.ask) if self._recognizer else ()
        if not commands:
            return None
        self._execute(turn, ToolCalls(KNOWN, tuple(call_of(one, self.contract.tools) for one in commands)))
        is_done = all(one.status == "done" for one in turn.outcomes)
        turn.messages.append(Message("assistant", "Done." if is_done else "Not done.", KNOWN))
        return "answer"

    def _step(self, turn: _Turn) -> Generator[Request, Completion, str | None]:
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
            turn.model_answer = reply.text
            turn.messages.append(Message("assistant", reply.text, reply.thought))
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
        self._execute(turn, reply)
        return None

    def _doubt(self, ask: str, reply: ToolCalls, completion: Completion) -> Doubt | None:
        """Return what to ask before calls are carried out: the model is not sure, or the words speak against it."""
        commands = [command for call in reply.calls for command in self._commands(call)]
        devices = [one.device for one in commands if one.device in self.broker.site.devices]
        is_sure = completion.probability >= self._ask_below
        if is_sure and not (devices and speaks_against(ask, devices, self.broker.site.devices, self._naming.words)):
            return None
        return doubt_about(self.broker.site, reply, commands)

    def _question(self, turn: _Turn, calls: Iterable[ToolCall]) -> Question | None:
        """Return what must be asked back before calls are carried out; an area or a scene is always clear."""
        commands, clear = [], []
        for call in calls:
            found = [one for one in self._commands(call) if one.device in self.broker.site.devices]
            commands += found
            clear += [] if "device" in call.arguments else found
        return self._naming.question(turn.ask, commands, self._recent(), clear)

    def _recent(self) -> set[str]:
        """Return the devices that the turn before called or spoke of."""
        start = next((place for place, one in enumerate(reversed(self._history)) if one.role == "user"), 0)
        last = self._history[len(self._history) - start :]
        called = {command.device for one in last for call in one.calls for command in self._commands(call)}
        told = " ".join(one.text for one in last if one.role == "assistant")
        return called | {name for name, device in self.broker.site.devices.items() if device.title in told}

    def _take_up(self, turn: _Turn, asked: Question | Doubt) -> str | None:
        """Carry out what was asked about, as the answer has it; return why the turn ends, if so."""
        return self._confirmed(turn, asked) if isinstance(asked, Doubt) else self._chosen(turn, asked)

    def _confirmed(self, turn: _Turn, doubt: Doubt) -> str | None:
        is_yes = said_yes(turn.ask)
        if is_yes:
            self._execute(turn, doubt.reply)
        elif is_yes is False:
            turn.model_answer = LEFT
            turn.messages.append(Message("assistant", LEFT, "not meant, nothing to do."))
            return "answer"
        return None

    def _chosen(self, turn: _Turn, asked: Question) -> str | None:
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

    def _query(self, turn: _Turn, left_s: float) -> Generator[Request, Completion, Completion]:
        """Have the model complete the prompt, without the oldest turns if they do not fit."""
        while True:
            prompt = self.contract.template.render([self._system, *turn.messages], add_generation_prompt=True)
            try:
                return (yield Request(prompt, turn.grammar, Limits(self._limits.reply_tokens, left_s)))
            except ContextFull:
                if len(shorter := without_oldest_half(turn.messages)) == len(turn.messages):
                    raise
                turn.messages, turn.has_forgotten = shorter, True

    def _execute(self, turn: _Turn, reply: ToolCalls) -> None:
        """Carry out the calls of a reply, and show the model what came of them."""
        results = [self._result_of(turn, call) for call in reply.calls]
        turn.messages.append(Message("assistant", "", reply.thought, reply.calls))
        turn.messages.append(result_message(results))
        turn.grammar = self._grammar  # the state that was shown is not the state any more

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

    def _result_of(self, turn: _Turn, call: ToolCall) -> dict[str, Value]:
        """Carry out what a call stands for; return its result for the model."""
        return result_of([self._carry_out(turn, command).result for command in self._commands(call)])

    def _commands(self, call: ToolCall) -> list[Command]:
        commands = commands_of(call, self.contract.tools)
        assert not isinstance(commands, str), commands  # parse_reply lets no such call through
        return commands

    def _carry_out(self, turn: _Turn, command: Command) -> Outcome:
        """Carry out a command, unless the same one was done in this turn: a model that loops repeats nothing."""
        outcome = next((done for done in turn.outcomes if done.command == command), None)
        if outcome is None or outcome.status != "done":
            outcome = self.broker.execute(command)
            turn.outcomes.append(outcome)
        return outcome


def without_oldest_half(messages: list[Message]) -> list[Message]:
    """Return messages from the middle one of the user's on; all of them if there is only one."""
    starts = [number for number, message in enumerate(messages) if message.role == "user"]
    return messages[starts[len(starts) // 2] :]


class _Turn:
    """What a turn has gathered so far, what the model is shown next and may reply, and when its time is up."""

    def __init__(self, ask: str, messages: list[Message], grammar: Grammar, deadline_s: float) -> None:
        self.ask, self.messages, self.grammar, self.deadline_s = ask, messages, grammar, deadline_s
        self.thoughts: list[str] = []
        self.replies: list[Reply] = []
        self.completions: list[Completion] = []
        self.outcomes: list[Outcome] = []
        self.model_answer = self.question = ""
        self.choices: tuple[str, ...] = ()
        self.stop_reason = ""
        self.has_forgotten = False

    def take(self, completion: Completion, reply: Reply) -> None:
        self.completions.append(completion)
        self.replies.append(reply)
        if not isinstance(reply, Unusable):
            self.thoughts.append(reply.thought)

    def ask_back(self, question: Question | Doubt, site: Site) -> None:
        self.question, self.choices = question.text, question.choices(site)
        self.messages.append(Message("assistant", question.text, question.thought))

    def result(self, site: Site, state: State) -> TurnResult:
        told = [one for one in self.outcomes if one.status != "done" or one.command.device in site.devices]
        reports = reports_text([(action_of(site, one.command)[0].title, one.report) for one in told])
        if self.stop_reason == "question":
            answer = f"{reports} {self.question}".strip()
        elif self.stop_reason != "answer":
            answer = f"{reports} {NOT_SURE if self.stop_reason == 'unsure' else NO_ANSWER}".strip()
        else:
            answer = reports or self.model_answer
        return TurnResult(
            self.ask,
            answer,
            self.model_answer,
            " ".join(self.thoughts),
            tuple(map(ActionRecord.of, self.outcomes)),
            tuple(self.replies),
            tuple(self.completions),
            self.stop_reason,
            self.has_forgotten,
            state,
            self.choices,
        )
