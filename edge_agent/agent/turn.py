"""What one request may cost, what it gathers while it is worked, and what it led to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from devices.broker.broker import Outcome
from devices.site.describe import reports_text
from devices.site.schema import Value
from devices.site.site import Site
from devices.site.tools import action_of
from edge_agent.agent.doubt import Doubt
from edge_agent.agent.naming import Question
from edge_agent.engine.engine import Completion
from edge_agent.grammar.grammar import Grammar
from edge_agent.wire.messages import (
    Message,
    State,
)
from edge_agent.wire.parsing import Reply, ToolCalls, Unusable

NO_ANSWER = "I could not work that out, so I stopped."
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


USUAL_LIMITS = TurnLimits()


class Turn:
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
        """Note what the model completed, and how that reads."""
        self.completions.append(completion)
        self.replies.append(reply)
        if not isinstance(reply, Unusable):
            self.thoughts.append(reply.thought)

    def say(self, text: str, thought: str) -> None:
        """Answer with a text, after a thought."""
        self.model_answer = text
        self.messages.append(Message("assistant", text, thought))

    def ask_back(self, question: Question | Doubt, site: Site) -> None:
        """Answer with a question."""
        self.question, self.choices = question.text, question.choices(site)
        self.messages.append(Message("assistant", question.text, question.thought))

    def result(self, site: Site, state: State) -> TurnResult:
        """Return what it led to. Args: site: whose devices report; state: what the model was shown."""
        reports = told(self.outcomes, site)
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


def joined(ask: str, parts: Sequence[TurnResult], undone: Sequence[str]) -> TurnResult:
    """Return what a compound request led to. A question is told last, and only one: an answer is expected to that.

    Args:
        ask: the request.
        parts: what its parts led to.
        undone: parts that were not worked.
    """
    questions = [one for one in parts if one.stop_reason == "question"]
    left = [f"I left this undone: {one}." for one in (*(one.ask.rstrip(".!") for one in questions[1:]), *undone)]
    answers = [one.answer for one in parts if one not in questions] + left + [one.answer for one in questions[:1]]
    worst = next((one.stop_reason for one in parts if one.stop_reason not in ("answer", "question")), "answer")
    return TurnResult(
        ask,
        " ".join(dict.fromkeys(answers)),
        " ".join(one.model_answer for one in parts if one.model_answer),
        " ".join(one.thought for one in parts if one.thought),
        tuple(action for one in parts for action in one.actions),
        tuple(reply for one in parts for reply in one.replies),
        tuple(completion for one in parts for completion in one.completions),
        "question" if questions else worst,
        any(one.has_forgotten for one in parts),
        parts[0].state,
        questions[0].choices if questions else (),
    )


def told(outcomes: Iterable[Outcome], site: Site) -> str:
    """Return what the broker reports, as one text; what a function answered is told by the model."""
    shown = [one for one in outcomes if one.status != "done" or one.command.device in site.devices]
    return reports_text([(action_of(site, one.command)[0].title, one.report) for one in shown])
