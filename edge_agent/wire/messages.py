"""Messages, and the text inside a turn: state and request, thought and calls, results.

An assistant turn is `<think>…</think>` and then one or more `<tool_call>{"name":…,"arguments":{…}}</tool_call>`, or the
plain answer, under every chat template.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from devices.site.schema import Value
from devices.site.tools import ToolCall
from edge_agent.wire.durations import with_smaller_units
from edge_agent.wire.markers import CALL, END_CALL, END_THINK, THINK
from edge_agent.wire.slips import without_slips
from edge_agent.wire.spelling import NO_WORDS, SiteWords, usual_spelling
from edge_agent.wire.spoken_numbers import with_digits

REQUEST = "Request: "
DONE, NOT_DONE = "Done.", "Not done."  # all that the assistant says after calls
State = Mapping[str, Mapping[str, Value]]
Ages = Mapping[str, Mapping[str, str]]
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Message:
    """One turn. `thought` and `calls` belong to the assistant only.

    A reply that is not trained is context only, such as the wrong one before a correction.
    """

    role: Role
    text: str
    thought: str = ""
    calls: tuple[ToolCall, ...] = ()
    is_trained: bool = True


def user_message(
    text: str, state: State, clock: str, words: SiteWords | None = NO_WORDS, ages: Ages = MappingProxyType({})
) -> Message:
    """Return the user's turn: fresh state and clock, then the request, so that what counts most is nearest the reply.

    Lines about devices and tools, and thoughts, begin with a blank: a word is then the same token wherever it is copied
    from or to, as tokenizers have a blank as a part of the word after it.

    Args:
        text: what the person said, in any capitals; it is spelled as usual, numbers in digits, durations in the site's
            units, and markers in it are defused.
        state: property values by device.
        clock: local time as HH:MM.
        words: of the site, as the contract has them; None for a toolset, where nothing stands before a request.
        ages: in words, of values that are older than they should be.
    """
    if words is None:
        return Message("user", defuse(text))
    spelled = with_smaller_units(digits_text(text, words), words)
    lines = [*_state_lines(state, words, ages), f"clock {clock}", REQUEST + defuse(spelled)]
    return Message("user", "\n".join(["State:", *lines]))


def digits_text(text: str, words: SiteWords) -> str:
    """Return a request as it is usually spelled, names without slips, numbers in digits. Args: as `user_message`."""
    return with_digits(usual_spelling(without_slips(text, words), words), words)


def _state_lines(state: State, words: SiteWords, ages: Ages) -> Iterator[str]:
    """Yield a line a device; of a site with areas, area by area, a line for devices of one kind that are alike."""
    if not words.areas:
        yield from (f" {name}:{text}" for name, text in facts_of(state, ages))
    kinds = {name: f" {kind}" for name, kind in words.kinds}
    for area, devices in words.areas:
        alike: dict[tuple[str, str], list[str]] = {}
        for name in devices:
            text = facts_text(state.get(name, {}), ages.get(name, {}))
            alike.setdefault((kinds.get(name, ""), text), []).append(name)
        if area:
            yield f"in {area}"
        yield from (f"{kind} {', '.join(names)}:{text}" for (kind, text), names in alike.items())


def request_of(text: str) -> str:
    """Return what the person said in a user's turn."""
    return text.rsplit(f"\n{REQUEST}", 1)[-1]


def before_request(prompt: str) -> str:
    """Return what stands in a prompt before the last request."""
    return prompt[: prompt.rindex(f"\n{REQUEST}")]


def facts_of(state: State, ages: Ages = MappingProxyType({})) -> list[tuple[str, str]]:
    """Return each device's name and what stands after it and a colon."""
    return [(name, facts_text(values, ages.get(name, {}))) for name, values in state.items()]


def facts_text(values: Mapping[str, Value], ages: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return what stands after a device's name and a colon, in the state and in thoughts that cite it.

    An old value has its age after it: `temperature_c=18.5 (3 hours ago)`.
    """
    facts = (f"{key}={json_value(value)}" + (f" ({ages[key]})" if key in ages else "") for key, value in values.items())
    return " " + (" ".join(facts) or "unavailable")


def result_message(results: Sequence[dict[str, Value]]) -> Message:
    """Return the tool turn: one JSON object a line, in the order of the calls."""
    return Message("tool", "\n".join(defuse(compact_json(result)) for result in results))


def result_of(results: Sequence[dict[str, Value]]) -> dict[str, Value]:
    """Return what a call led to: the one command's result, or how many of several have which status."""
    if len(results) == 1:
        return results[0]
    if not results:
        return {"status": "refused", "reason": "no device is left"}
    statuses = Counter(str(result["status"]) for result in results)
    others = [str(result["device"]) for result in results if result["status"] != "done"]
    status = "partly done" if len(statuses) > 1 else next(iter(statuses))
    merged: dict[str, Value] = {"status": status, **statuses}
    return merged | ({"not done": ", ".join(others)} if others else {})


def body_of(message: Message) -> str:
    """Return what a template puts between a turn's header and its end-of-turn token."""
    if message.role != "assistant":
        return message.text
    calls = "".join(
        f"{CALL}{compact_json({'name': call.name, 'arguments': call.arguments})}{END_CALL}" for call in message.calls
    )
    return f"{THINK} {message.thought}{END_THINK}{calls or message.text}"


def defuse(text: str) -> str:
    """Return text from outside with everything broken that could read as a marker, a special token or a heading."""
    for start in ("<|", "</", "<t", "<s>", "<start_", "<end_", "<bos>", "<eos>", "[INST", "[/INST", "[TOOL", "###"):
        text = text.replace(start, f"{start[0]} {start[1:]}")
    return text.replace("|>", "| >")


def compact_json(value: Any) -> str:
    """Return JSON without blanks, keys in the order given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_value(value: Value) -> str:
    """Return a value as JSON, numbers with at most one decimal and no trailing zero."""
    if isinstance(value, float):
        value = round(value, 1)
        value = int(value) if value == int(value) else value
    return compact_json(value)


def message_to_dict(message: Message) -> dict[str, Any]:
    """Return a turn as JSON has it."""
    plain: dict[str, Any] = {"role": message.role, "text": message.text}
    if message.role == "assistant":
        plain["thought"] = message.thought
    if message.calls:
        plain["calls"] = [{"name": call.name, "arguments": call.arguments} for call in message.calls]
    return plain if message.is_trained else plain | {"trained": False}


def message_from_dict(plain: dict[str, Any]) -> Message:
    """Return the turn of such JSON. Raises ValueError, KeyError or TypeError if it is none."""
    if plain["role"] not in get_args(Role):
        raise ValueError(f"unknown role {plain['role']!r}")
    text, thought, trained = plain["text"], plain.get("thought") or "", plain.get("trained")
    if not isinstance(text, str) or not isinstance(thought, str) or trained not in (None, False, True):
        raise ValueError(f"text and thought are strings, and trained is true or false: {str(plain)[:80]}")
    calls = tuple(ToolCall(call["name"], dict(call["arguments"] or {})) for call in plain.get("calls") or [])
    return Message(plain["role"], text, thought, calls, trained is not False)


def messages_of(plain: dict[str, Any]) -> list[Message]:
    """Return the turns of a conversation's JSON, `{"messages": [...]}`. Raises as message_from_dict."""
    return [message_from_dict(message) for message in plain["messages"]]
