"""Whole conversations of a toolset: the agent hears what the person said, acts, and the end is graded.

Its calls go through the broker with the toolset's policy, each confirmed. They are answered as the conversation has it
on record, or carried out by the toolset's executors.

Does not guard against: a person who would have gone on otherwise after another answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.broker.runtime import SiteRuntime, live_runtime
from devices.driver import CallRefused
from devices.drivers.only_calls import OnlyCalls
from devices.site.site import Site
from devices.site.tools import ToolCall
from edge_agent.agent.simulation import Simulation
from edge_agent.agent.turn import TurnLimits, TurnResult
from edge_agent.engine.engine import Engine
from edge_agent.evaluation.conversations.turns import Conversation, TurnCase, has_facts, is_same_call
from edge_agent.wire.chat_template import ChatTemplate

Execution = Literal["recorded", "live"]


@dataclass(frozen=True)
class ExecutedConversation:
    """What came of a conversation.

    Attributes:
        id: of the conversation.
        missing: calls that it has and the agent did not propose.
        extra: calls that the agent proposed and it does not have, but for those of functions that only ask.
        has_facts: whether the answers have the numbers and codes of the results that the recorded ones have; None if
            these have none.
        has_ended: whether each turn ended with an answer.
        answers: what the person saw.
    """

    id: str
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    has_facts: bool | None
    has_ended: bool
    answers: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        """Whether its calls were made and no others, and its end was told."""
        return not self.missing and not self.extra and self.has_facts is not False and self.has_ended


class RecordedDriver(OnlyCalls):
    """Answers each call as a conversation recorded it; refuses one that is not in it."""

    def __init__(self, conversation: Conversation) -> None:
        self._answers = recorded_answers(conversation)

    def call(self, device: str, action: str, arguments: Mapping[str, Any], key: str) -> Any:
        """Return the recorded answer of such a call."""
        del action, key
        call = ToolCall(device, dict(arguments))
        for recorded, answer in self._answers:
            if is_same_call(recorded, call):
                return answer
        raise CallRefused("the conversation has no such call")

    def close(self) -> None:
        """Nothing is open."""


def recorded_answers(conversation: Conversation) -> list[tuple[ToolCall, Any]]:
    """Return each call of a conversation with its result, as JSON if it is any."""
    found = []
    for message, after in zip(conversation.messages, conversation.messages[1:], strict=False):
        if message.role != "assistant" or not message.calls or after.role != "tool":
            continue
        lines = [after.text] if len(message.calls) == 1 else after.text.split("\n")
        found += [(call, _json_or_text(line)) for call, line in zip(message.calls, lines, strict=False)]
    return found


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def execute_conversations(
    engine: Engine,
    toolset: Site,
    template: ChatTemplate,
    conversations: Sequence[Conversation],
    execution: Execution,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ExecutedConversation]:
    """Return what an agent does in each conversation that has the toolset's own system text; others are left out.

    Raises:
        UsageError: `live`, and a tool has no executor.
        UnavailableError: the engine failed.
    """
    simulation = Simulation(toolset, template, TurnLimits(timeout_s=math.inf))
    own = [one for one in conversations if one.messages[0].text == simulation.contract.system_text]
    done = []
    for conversation in own:
        done.append(_execute(engine, simulation, conversation, execution))
        progress(len(done), len(own))
    return done


def _execute(
    engine: Engine, simulation: Simulation, conversation: Conversation, execution: Execution
) -> ExecutedConversation:
    toolset, journal = simulation.site, Journal()
    if execution == "live":
        runtime = live_runtime(toolset, journal, lambda effect: True)
    else:
        driver = RecordedDriver(conversation)
        runtime = SiteRuntime(Broker(toolset, driver, journal, confirm=lambda effect: True), driver, None)
    try:
        agent = simulation.agent_in(runtime)
        results = [agent.ask(engine, message.text) for message in conversation.messages if message.role == "user"]
    finally:
        runtime.close()
    return grade(conversation, results, toolset)


def grade(conversation: Conversation, results: Sequence[TurnResult], toolset: Site) -> ExecutedConversation:
    """Return what an agent's turns come to, against what the conversation has."""
    missing = [call for message in conversation.messages for call in message.calls]
    extra = []
    for action in (action for result in results for action in result.actions):
        proposed = ToolCall(action.device, dict(action.input))
        match = next((call for call in missing if is_same_call(call, proposed)), None)
        if match:
            missing.remove(match)
        elif toolset.functions[action.device].risk != "none":
            extra.append(proposed)
    facts = [has_facts(case, result.answer) for case, result in zip(_answers(conversation), results, strict=True)]
    return ExecutedConversation(
        conversation.name,
        tuple(map(_text, missing)),
        tuple(map(_text, extra)),
        None if all(flag is None for flag in facts) else False not in facts,
        all(result.stop_reason in {"answer", "question"} for result in results),
        tuple(result.answer for result in results),
    )


def _answers(conversation: Conversation) -> list[TurnCase]:
    """Return the last reply to each request as a case: what the person was told in the end."""
    messages = conversation.messages
    ends = [*[place for place, one in enumerate(messages) if one.role == "user"][1:], len(messages)]
    return [TurnCase(conversation.name, messages[: end - 1], messages[end - 1], conversation.schemas) for end in ends]


def _text(call: ToolCall) -> str:
    return f"{call.name}({json.dumps(call.arguments, ensure_ascii=False)})"
