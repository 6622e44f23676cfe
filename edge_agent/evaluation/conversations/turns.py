"""Strict evaluation on own conversations: each held-out reply is made anew, given everything that was said before it.

As for sites there are two passes: free, and constrained by the grammar as on a box. Nothing is carried out.

Does not guard against: a reply that is right in other words, or a call that would have done just as well.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from devices.errors import UsageError
from devices.json_lines import read_json_lines
from devices.site.functions import CALL as CALL_ACTION
from devices.site.functions import Function
from devices.site.site import Site
from devices.site.tools import Tool, ToolCall, tools_of
from edge_agent.agent.simulation import in_context_steps
from edge_agent.agent.turn import TurnLimits
from edge_agent.engine.engine import Completion, Engine, Limits, Request
from edge_agent.evaluation.evaluation import EvaluationEngine, Progress, fits, named
from edge_agent.grammar.grammar import Grammar
from edge_agent.grammar.reply_grammar import reply_grammar
from edge_agent.plugins import CASE_MAKERS, CONVERSATIONS, load_plugin
from edge_agent.wire.chat_template import ChatTemplate
from edge_agent.wire.contract import Contract, system_text
from edge_agent.wire.markers import CALL, END_CALL
from edge_agent.wire.messages import Message, body_of, messages_of
from edge_agent.wire.parsing import Answer, ToolCalls, parse_reply
from edge_agent.wire.renamed_functions import with_other_names

_FACT = re.compile(r"[^\W_][\w.:/-]*\d[\w.:/-]*|\d[\w.:/-]*")  # a number, or a code with a digit in it


@dataclass(frozen=True)
class Conversation:
    """A conversation of an owner's: its name, its turns from the system text on, and the schemas of its tools."""

    name: str
    messages: tuple[Message, ...]
    schemas: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class TurnCase:
    """A reply to be made: what stands before it, what it should be, and the schemas of the tools declared there."""

    id: str
    before: tuple[Message, ...]
    expected: Message
    schemas: Mapping[str, Mapping[str, Any]]

    @property
    def kind(self) -> str:
        """The tools that should be called, or that none should."""
        return " + ".join(call.name for call in self.expected.calls) or "answer"

    @property
    def asked(self) -> str:
        """The last words before it, of a person or a tool."""
        return self.before[-1].text if self.before else ""


@dataclass(frozen=True)
class TurnScore:
    """One reply, judged. What does not apply to it is None.

    Attributes:
        id: of the case.
        kind: of the case.
        asked: of the case.
        expected: the raw text of what it should be.
        is_decided: whether it calls where it should and answers where it should.
        is_json: whether what begins as a call is JSON; None if nothing does.
        is_usable: whether it can be parsed, and its calls fit their schemas.
        is_tool_right: whether the tools are those expected, each as often.
        is_exact: whether the arguments are too, byte for byte.
        is_right: whether they are when 1 is 1.0, and spaces, capitals and forms of dates do not count.
        would_do: whether they are right where text that had to be composed need only have the same numbers and codes.
        is_ordered: whether several calls are in the order expected.
        invents_tool: whether it calls a tool that is not declared.
        invents_argument: whether it gives an argument that the tool does not have.
        has_facts: whether an answer has the numbers and codes of the results before it that the expected one has.
        has_ended: whether it ended by itself.
        arguments: of each argument of calls whose tool is right, whether its value is.
        reply: the raw text.
    """

    id: str
    kind: str
    asked: str
    expected: str
    is_decided: bool
    is_json: bool | None
    is_usable: bool
    is_tool_right: bool | None
    is_exact: bool | None
    is_right: bool | None
    would_do: bool | None
    is_ordered: bool | None
    invents_tool: bool
    invents_argument: bool
    has_facts: bool | None
    has_ended: bool
    arguments: tuple[tuple[str, bool], ...]
    reply: str

    @property
    def is_good(self) -> bool:
        """Whether it is good enough: the calls that were expected and no others, or an answer with its facts."""
        if self.is_tool_right is not None:
            return bool(self.would_do) and self.has_ended
        return self.is_decided and self.is_usable and self.has_facts is not False and self.has_ended


def read_conversations(path: Path, contract: Contract) -> list[Conversation]:
    """Return the conversations of RUN/held_out.jsonl, or of a file in any format.

    Raises:
        UsageError: the file cannot be read, or there is no reply in it; with file and line.
    """
    if _is_held_out(path):
        read = read_json_lines(path, _row_of, "conversation")
        found = [Conversation(f"{path.stem}-{number}", *row) for number, (_, row) in enumerate(read, start=1)]
    else:
        found = [Conversation(*row) for row in load_plugin(CASE_MAKERS, CONVERSATIONS)(str(path), contract)]
    if not any(map(cases_of, found)):
        raise UsageError(f"{path}: there is no reply to make in it")
    return found


def renamed_conversations(conversations: Sequence[Conversation], toolset: Site, seed: int) -> list[Conversation]:
    """Return the conversations that have a toolset's own system text, each with other names of tools and arguments.

    Raises:
        UsageError: none has it.
    """
    own = system_text(toolset, tools_of(toolset))
    found = [
        Conversation(one.name, *with_other_names(one.messages, toolset, Random(f"{seed}-{one.name}")))
        for one in conversations
        if one.messages[0].text == own
    ]
    if not found:
        raise UsageError(f"no conversation has the system text of {toolset.name}, whose tools are to be renamed")
    return found


def read_turn_cases(path: Path, contract: Contract) -> list[TurnCase]:
    """Return a case for each reply that is to be learned; raises as read_conversations."""
    return [case for one in read_conversations(path, contract) for case in cases_of(one)]


def _is_held_out(path: Path) -> bool:
    """Return whether the first line of a file has its tools' schemas, as `write_held_out` writes them."""
    try:
        with path.open(encoding="utf-8") as file:
            return '"schemas": {' in file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the conversations {path}: {error}") from error


def _row_of(plain: Any) -> tuple[tuple[Message, ...], dict[str, Any]]:
    return tuple(messages_of(plain)), dict(plain["schemas"])


def cases_of(conversation: Conversation) -> list[TurnCase]:
    """Return a case for each reply of a conversation that is to be learned."""
    return [
        TurnCase(f"{conversation.name}-{place}", conversation.messages[:place], message, conversation.schemas)
        for place, message in enumerate(conversation.messages)
        if message.role == "assistant" and message.is_trained
    ]


def play_turns(
    engine: EvaluationEngine,
    cases: Sequence[TurnCase],
    template: ChatTemplate,
    *,
    batch_size: int,
    progress: Progress | None = None,
) -> tuple[list[TurnScore], list[TurnScore]]:
    """Return the scores of every reply, free and constrained, in the order of the cases.

    Raises:
        UnavailableError: the engine failed.
    """
    requests = requests_for(cases, template)
    free = generate(engine, [replace(one, grammar=None) for one in requests], batch_size, named("free", progress))
    again = [
        number
        for number, (request, one) in enumerate(zip(requests, free, strict=True))
        if not fits(engine, request, one)
    ]
    rerun = generate(engine, [requests[number] for number in again], batch_size, named("constrained", progress))
    constrained = dict(enumerate(free)) | dict(zip(again, rerun, strict=True))
    return (
        [score_turn(case, one) for case, one in zip(cases, free, strict=True)],
        [score_turn(case, constrained[number]) for number, case in enumerate(cases)],
    )


def requests_for(cases: Sequence[TurnCase], template: ChatTemplate) -> list[Request]:
    """Return what an engine is asked for each case, with the grammar of the tools declared there."""
    grammars: dict[str, Grammar] = {}  # most cases have the same tools
    requests = []
    for case in cases:
        if (key := json.dumps(case.schemas)) not in grammars:
            grammars[key] = reply_grammar(tools_of_case(case))
        prompt = template.render(case.before, add_generation_prompt=True)
        requests.append(Request(prompt, grammars[key], Limits(TurnLimits.reply_tokens)))
    return requests


def generate(
    engine: Engine, requests: Sequence[Request], batch_size: int, progress: Callable[[int, int], None]
) -> list[Completion]:
    """Return an engine's completions, so many at a time. Raises UnavailableError if it fails."""
    made: list[Completion] = []
    for start in range(0, len(requests), batch_size):
        made += engine.generate(requests[start : start + batch_size])
        progress(len(made), len(requests))
    return made


def tools_of_case(case: TurnCase) -> tuple[Tool, ...]:
    """Return the tools that are declared where a reply is to be made."""
    return _declared(json.dumps(case.schemas))


@lru_cache(maxsize=64)
def _declared(schemas: str) -> tuple[Tool, ...]:
    """Return tools by the JSON of their schemas: most cases have the same, and each schema is checked."""
    return tuple(
        Tool(name, CALL_ACTION, (), {}, function=Function(parameters=schema))
        for name, schema in json.loads(schemas).items()
    )


def context_tokens_for(cases: Sequence[TurnCase], template: ChatTemplate) -> int:
    """Return the room that the longest prompt and its reply need, in any vocabulary: tokens have two bytes and more."""
    longest = max(len(template.render(case.before, add_generation_prompt=True).encode()) for case in cases)
    return in_context_steps(longest // 2 + TurnLimits.reply_tokens)


def score_turn(case: TurnCase, completion: Completion) -> TurnScore:
    """Return the verdict on one reply."""
    text = completion.text
    reply, expected = parse_reply(text, tools_of_case(case)), case.expected.calls
    raw = _raw_calls(text)
    got = reply.calls if isinstance(reply, ToolCalls) else ()
    names, wanted = [call.name for call in got], [call.name for call in expected]
    is_tool_right = Counter(names) == Counter(wanted) if expected else None
    pairs = _paired(expected, got) if is_tool_right else []
    return TurnScore(
        id=case.id,
        kind=case.kind,
        asked=case.asked,
        expected=body_of(case.expected),
        is_decided=(CALL in text) == bool(expected),
        is_json=None if CALL not in text else raw is not None,
        is_usable=isinstance(reply, ToolCalls | Answer),
        is_tool_right=is_tool_right,
        is_exact=all(_bytes(one) == _bytes(other) for one, other in pairs) if is_tool_right else is_tool_right,
        is_right=all(_norm(one) == _norm(other) for one, other in pairs) if is_tool_right else is_tool_right,
        would_do=all(_would_do(case, call, got) for call, (_, got) in zip(expected, pairs, strict=False))
        if is_tool_right
        else is_tool_right,
        is_ordered=names == wanted if is_tool_right and len(wanted) > 1 else None,
        invents_tool=any(name not in case.schemas for name, _ in raw or ()),
        invents_argument=any(
            argument not in case.schemas[name].get("properties", {argument: 0})
            for name, given in raw or ()
            if name in case.schemas
            for argument in given
        ),
        has_facts=has_facts(case, reply.text if isinstance(reply, Answer) else ""),
        has_ended=completion.stop_reason == "end_of_turn",
        arguments=tuple(
            (f"{call.name}.{name}", name in other and _norm(value) == _norm(other[name]))
            for call, (_, other) in zip(expected, pairs, strict=False)
            for name, value in call.arguments.items()
        ),
        reply=text,
    )


def _raw_calls(text: str) -> list[tuple[str, dict[str, Any]]] | None:
    """Return names and arguments of what begins as a call; None if one is no JSON of that form."""
    found = []
    for rest in text.split(CALL)[1:]:
        try:
            plain = json.loads(rest.partition(END_CALL)[0])
            found.append((str(plain["name"]), dict(plain["arguments"])))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
    return found


def _paired(expected: Sequence[ToolCall], got: Sequence[ToolCall]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the arguments of each expected call with those of one that was made: an equal one if there is any."""
    left = list(got)
    pairs = []
    for call in expected:
        same = [one for one in left if one.name == call.name]
        best = next((one for one in same if _norm(one.arguments) == _norm(call.arguments)), same[0])
        left.remove(best)
        pairs.append((call.arguments, best.arguments))
    return pairs


def _would_do(case: TurnCase, expected: ToolCall, got: Mapping[str, Any]) -> bool:
    """Return whether a call has the arguments expected; composed text need only have the same numbers and codes."""
    if expected.arguments.keys() != got.keys():
        return False
    properties = case.schemas.get(expected.name, {}).get("properties", {})
    said = _norm(" ".join(message.text for message in case.before))
    for name, value in expected.arguments.items():
        is_composed = isinstance(value, str) and " " in value and "enum" not in properties.get(name, {})
        if is_composed and _norm(value) not in said:
            if not isinstance(got[name], str) or not got[name].strip() or _facts_in(got[name]) != _facts_in(value):
                return False
        elif _norm(value) != _norm(got[name]):
            return False
    return True


def is_same_call(first: ToolCall, second: ToolCall) -> bool:
    """Return whether two calls ask for the same: 1 is 1.0, and spaces, capitals and forms of dates do not count."""
    return first.name == second.name and _norm(first.arguments) == _norm(second.arguments)


def _bytes(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _norm(value: Any) -> Any:
    """Return what counts of a value: numbers by what they are, texts without case, spaces and forms of dates."""
    if isinstance(value, dict):
        return {name: _norm(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_norm(one) for one in value]
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int | float):
        return float(value)
    text = " ".join(str(value).split()).casefold()
    return _date_of(text) or text


def _date_of(text: str) -> str:
    for form in ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%d %B %Y", "%B %d, %Y", "%B %d %Y", "%d %b %Y"):
        try:
            found: date = datetime.strptime(text, form).date()
        except ValueError:
            continue
        return found.isoformat()
    return ""


def has_facts(case: TurnCase, answer: str) -> bool | None:
    """Return whether an answer has what the expected one takes from the results before it; None if it takes nothing."""
    results = ""
    for message in reversed(case.before):
        if message.role != "tool":
            break
        results += f" {message.text}"
    if case.expected.calls or not results:
        return None
    known = _facts_in(results)
    wanted = _facts_in(case.expected.text) & known
    return wanted <= _facts_in(answer) if wanted else None


def _facts_in(text: str) -> set[str]:
    found = set()
    for match in _FACT.finditer(text):
        fact = match.group().rstrip(".:/-").casefold()
        with contextlib.suppress(ValueError):
            fact = f"{float(fact):g}"
        found.add(fact)
    return found
