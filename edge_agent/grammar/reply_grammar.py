"""The grammar of a reply, for llguidance: thought, then calls that fit their schemas, or an answer.

Fails closed: a grammar that cannot be built raises, and without one the agent makes no tool call.

Does not guard against: a call that fits its schema and is still wrong, or unsafe (that is the broker's work).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

from devices.errors import UsageError
from devices.site.schema import DataSchema
from devices.site.tools import Tool
from edge_agent.grammar.enforced_schema import enforced
from edge_agent.grammar.grammar import THOUGHT_CHARACTERS, Grammar, marker_rule
from edge_agent.wire.markers import MARKERS

ANSWER_CHARACTERS = 600
MAX_CALLS = 12
# JSON as wire.compact_json writes it. Source: llguidance 1.9, docs/json_schema.md, "Whitespace handling".
NO_BLANKS = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
NUMBER_STEP = 0.1  # as wire.json_value rounds
# What llguidance enforces for each type; a keyword outside this list would be ignored in silence.
ENFORCED = {
    "boolean": {"type"},
    "integer": {"type", "minimum", "maximum", "multipleOf"},
    "number": {"type", "minimum", "maximum", "multipleOf"},
    "string": {"type", "enum"},
}


@dataclass(frozen=True)
class ReplyForm:
    """What a reply may be, beside what its tools say.

    Attributes:
        is_call_required: whether it must be a call.
        most_calls: how many there may be; 0 is none.
        answer_schema: JSON Schema that an answer must fit, as enforced_schema.enforced returns it; None leaves it free.
    """

    is_call_required: bool = False
    most_calls: int = MAX_CALLS
    answer_schema: Mapping[str, Any] | None = None


def reply_grammar(tools: Sequence[Tool], form: ReplyForm = ReplyForm()) -> Grammar:
    """Return the grammar of one assistant turn, without its end-of-turn token, its markers as single tokens.

    That is how the starter's vocabulary has them; an engine sets it right for its own (`Grammar.for_vocabulary`).

    Args:
        tools: the tools that may be called; with none, only an answer is possible.
        form: what else is asked of the reply.

    Raises:
        UsageError: a schema has something that cannot be enforced; the message names tool, argument and feature.
    """
    _require_distinct_names(tools)
    has_lines = any(tool.function for tool in tools)  # answers of a site are read aloud, and have one
    return schema_grammar({tool.name: _enforced_schema(tool) for tool in tools}, form, has_lines=has_lines)


def schema_grammar(
    functions: Mapping[str, Mapping[str, Any]], form: ReplyForm = ReplyForm(), *, has_lines: bool = False
) -> Grammar:
    """Return the grammar of one assistant turn that may call any of some functions.

    Args:
        functions: JSON Schema of the arguments by name, as enforced_schema.enforced returns it.
        form: what else is asked of the reply.
        has_lines: whether an answer may have several lines.

    Raises:
        UsageError: llguidance cannot compile it.
    """
    line = r"([^<>\x00-\x1f\x7f]|\n)" if has_lines else r"[^<>\x00-\x1f\x7f]"
    answer = "ANSWER" if form.answer_schema is None else "json_answer"
    has_calls, has_answer = bool(functions and form.most_calls), not (functions and form.is_call_required)
    ends = [f"call{{1,{form.most_calls}}}"] * has_calls + [answer] * has_answer
    rules = [
        f"start: think THOUGHT end_think ({' | '.join(ends)})",
        *(marker_rule(marker, is_token=True).strip("\n") for marker in MARKERS),
        rf"THOUGHT: /[^<>\x00-\x1f\x7f]{{0,{THOUGHT_CHARACTERS}}}/",
        # the first character is not blank: wire.parse_reply takes a blank answer for none
        rf"ANSWER: /[^<>\s\x00-\x1f\x7f]{line}{{0,{ANSWER_CHARACTERS - 1}}}/",
    ]
    if form.answer_schema is not None and has_answer:
        rules.append(f"json_answer: %json {json.dumps(dict(form.answer_schema or {}) | {'x-guidance': NO_BLANKS})}")
    if has_calls:
        rules.append(f"call: open_call ({' | '.join(f'call_{number}' for number in range(len(functions)))}) end_call")
    for number, (name, schema) in enumerate(functions.items() if has_calls else ()):
        head = _literal(f'{{"name":{json.dumps(name, ensure_ascii=False)},"arguments":')
        rules.append(f'call_{number}: {head} arguments_{number} "}}"')
        spaced = dict(schema) | {"x-guidance": NO_BLANKS}
        rules.append(f"arguments_{number}: %json {json.dumps(spaced, ensure_ascii=False)}")
    return _checked(Grammar("\n".join(rules) + "\n"))


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _require_distinct_names(tools: Sequence[Tool]) -> None:
    names = [tool.name for tool in tools]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two tools are called {repeated}")


def _enforced_schema(tool: Tool) -> dict[str, Any]:
    """Return the schema of the arguments as llguidance needs it. Raises UsageError for what it cannot enforce."""
    if tool.function:
        _require_no_marker(tool, tool.name)
        return enforced(tool.function.parameters, f"tool {tool.name}")
    if not tool.devices and not tool.scenes:
        raise UsageError(f"tool {tool.name} has no device")
    for taken in ("device", *(("area", "except") if tool.targets else ())):
        if taken in tool.input:
            raise UsageError(f"tool {tool.name} has an argument called {taken}, which names the device itself")
    for value in (tool.name, *tool.devices, *tool.targets, *tool.scenes):
        _require_no_marker(tool, value)
    schema = tool.json_schema()
    for name, argument in tool.input.items():
        _require_enforceable(tool, name, argument)
        if argument.type == "number":
            for form in schema.get("anyOf", [schema]):
                form["properties"][name]["multipleOf"] = _common_step(argument.step)
    return schema


def _common_step(step: float | None) -> float:
    """Return the step of the numbers that a device takes and that the wire format can write."""
    first, second = Fraction(str(NUMBER_STEP)), Fraction(str(step or NUMBER_STEP))
    return lcm(first.numerator * second.denominator, second.numerator * first.denominator) / (
        first.denominator * second.denominator
    )


def _require_enforceable(tool: Tool, name: str, argument: DataSchema) -> None:
    where = f"tool {tool.name}, argument {name}"
    if argument.type not in ENFORCED:
        raise UsageError(f"{where}: the grammar cannot enforce the type {argument.type!r}")
    unknown = set(argument.json_schema()) - ENFORCED[argument.type] - {"description"}
    if unknown:
        raise UsageError(f"{where}: the grammar cannot enforce {sorted(unknown)[0]!r} of the type {argument.type}")
    missing = ENFORCED[argument.type] - set(argument.json_schema()) - {"multipleOf"}
    if missing:
        raise UsageError(f"{where}: the grammar needs {sorted(missing)[0]!r} for the type {argument.type}")
    for value in argument.enum or ():
        _require_no_marker(tool, value)


def _require_no_marker(tool: Tool, value: str) -> None:
    if any(marker in value for marker in MARKERS):
        raise UsageError(f"tool {tool.name}: {value!r} has a marker of the wire format in it")


def _checked(grammar: Grammar) -> Grammar:
    """Return the grammar if llguidance can compile it. Raises UsageError with its message."""
    from llguidance import LLMatcher

    # as plain text: without a vocabulary, llguidance cannot check tokens
    plain = LLMatcher.grammar_from_lark(grammar.for_vocabulary(()).lark)
    is_error, messages = LLMatcher.validate_grammar_with_warnings(plain)
    if is_error or messages:  # a warning means something is not enforced
        raise UsageError(f"the grammar of the tools cannot be built: {messages[0].strip() if messages else 'unknown'}")
    return grammar
