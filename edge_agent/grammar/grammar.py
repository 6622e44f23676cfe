"""A grammar as an engine gets it: text in llguidance's Lark dialect. reply_grammar.py makes it of tools.

Imports next to nothing: the engine's process starts with it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from edge_agent.wire.markers import CALL, END_CALL, END_THINK, MARKERS, THINK

THOUGHT_CHARACTERS = 400
_RULE_OF = {THINK: "think", END_THINK: "end_think", CALL: "open_call", END_CALL: "end_call"}


class NumberArgument(NamedTuple):
    """An argument of a tool for one device, a number, as thoughts write it.

    Attributes:
        device: by name.
        tool: by name.
        argument: by name.
        bounds: what stands after `argument:`, as ` 0..100 percent`.
        minimum, maximum, step: of its value.
        now: what the property behind it is; None if there is none.
        wished: what ways to name a value come to now, as (`a bit more`, `60`).
        asked: what the request's only duration is in its unit, or what the device is at if it is off, if it says so.
    """

    device: str
    tool: str
    argument: str
    bounds: str
    minimum: float
    maximum: float
    step: float
    now: float | None
    wished: tuple[tuple[str, str], ...]
    asked: str = ""

    @classmethod
    def of(cls, *values: Any) -> NumberArgument:
        """Return it from its values as JSON has them."""
        *plain, wished, asked = values
        return cls._make([*plain, tuple((words, text) for words, text in wished), asked])


class KnownTool(NamedTuple):
    """A tool as thoughts write it: name, devices as listed in its signature, their names, its arguments."""

    tool: str
    listed: str
    devices: tuple[str, ...]
    arguments: tuple[str, ...]


class KnownDevice(NamedTuple):
    """A device as answers have it: its title, what one and all of its kind are called, what answers a question of it.

    `answers` are sentences; where there are several, a question means one of them.
    """

    device: str
    title: str
    singular: str
    plural: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """What thoughts need not reckon or recall: it is given to them, once they have come to it (thought_guide.py).

    Attributes:
        facts: (device, text): after a device's name and a colon, a thought goes on with its text and nothing else, so
            that what is said of the state is what the state says.
        numbers: after `a bit more: … is DEVICE: …, TOOL ARGUMENT=` comes the value that this is now; after
            `ARGUMENT=VALUE, ARGUMENT:` come the bounds, and whether the value is outside.
        truths: (device, words, yes or no): whether what a condition hangs on is so, after its words and a colon, as
            `motion: yes`; where a number is compared (`level_pct below 20:`), what is so is reckoned.
        names: (name, device): after what one device alone is called and `is` comes that device.
        targets: devices, areas and scenes: after another name and `is` comes one of those that share most words with
            it, or that it is none.
        tools: after `is DEVICE,` comes a tool that it has, or that there is none; after `All of TOOL(` its devices.
        recent: after `it is` comes one of these, or of those that the thought has named: what was spoken of last.
        undo: after `undo,` comes what makes devices again what they were before the last commands.
        again: (tool, values): after `is DEVICE,` comes one of these tools, if it has one; then its values.
        off: (device, tool): after `is DEVICE,` comes this tool, if it makes off what is to be off.
        listed: (name, device): of a request that lists plain wishes, each device is in the thought before it ends.
        named: devices that the request names: if it names some, no other is left out of all of a tool.
        is_wish: whether the request is no question about the state, so that no thought begins as those of questions do.
        is_whole: whether the request has no word of an exception, so that no device is left out of all of them.
        direction: `more` or `less`: a wish for a value named by what it is now names none that goes the other way.
        short_wish: a thought begins with this wish and what was spoken of last, if that is one device with a number.
        there: devices called after the place or class that a request is about: no tool of others too is meant for all.
        is_except: whether a thought begins with all of a tool, but for some.
        devices: after a thought that only looks up their facts comes what answers that (thought_answers.py).
    """

    facts: tuple[tuple[str, str], ...] = ()
    numbers: tuple[NumberArgument, ...] = ()
    truths: tuple[tuple[str, str, str], ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    targets: tuple[str, ...] = ()
    tools: tuple[KnownTool, ...] = ()
    devices: tuple[KnownDevice, ...] = ()
    recent: tuple[str, ...] = ()
    undo: str = ""
    again: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    off: tuple[tuple[str, str], ...] = ()
    listed: tuple[tuple[str, str], ...] = ()
    named: tuple[str, ...] = ()
    is_wish: bool = False
    is_whole: bool = False
    direction: str = ""
    short_wish: str = ""
    there: tuple[str, ...] = ()
    is_except: bool = False

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Known:
        """Return it from what JSON keeps of `asdict`."""
        return cls(
            facts=tuple(map(tuple, plain["facts"])),
            numbers=tuple(NumberArgument.of(*number) for number in plain["numbers"]),
            truths=tuple(map(tuple, plain["truths"])),
            names=tuple(map(tuple, plain["names"])),
            targets=tuple(plain["targets"]),
            tools=tuple(KnownTool(one[0], one[1], tuple(one[2]), tuple(one[3])) for one in plain["tools"]),
            devices=tuple(KnownDevice._make([*one[:4], tuple(one[4])]) for one in plain["devices"]),
            recent=tuple(plain["recent"]),
            undo=plain["undo"],
            again=tuple((tool, tuple(map(tuple, values))) for tool, values in plain["again"]),
            off=tuple(map(tuple, plain["off"])),
            listed=tuple(map(tuple, plain["listed"])),
            named=tuple(plain["named"]),
            is_wish=plain["is_wish"],
            is_whole=plain["is_whole"],
            direction=plain["direction"],
            short_wish=plain["short_wish"],
            there=tuple(plain["there"]),
            is_except=plain["is_except"],
        )


NOTHING = Known()


@dataclass(frozen=True)
class Grammar:
    """A grammar in llguidance's Lark dialect, and what is known while a reply is made; equal ones have equal `lark`."""

    lark: str
    known: Known = NOTHING

    def knowing(self, known: Known) -> Grammar:
        """Return this grammar with what is known of a site and its state."""
        return Grammar(self.lark, known)

    def for_vocabulary(self, marker_tokens: Collection[str]) -> Grammar:
        """Return this grammar with each marker as a token where the vocabulary has one, else as plain text.

        Args:
            marker_tokens: the markers that are single tokens: all four in the starter's vocabulary and in
                Qwen3's, only those of the calls in Qwen2.5's, none in Llama 3's.
        """
        lark = self.lark
        for marker in MARKERS:
            for old in (True, False):
                lark = lark.replace(marker_rule(marker, old), marker_rule(marker, marker in marker_tokens))
        return Grammar(lark)


def marker_rule(marker: str, is_token: bool) -> str:
    """Return the rule of a marker, between line ends: as one token, or as text."""
    return f"\n{_RULE_OF[marker]}: {marker if is_token else json.dumps(marker)}\n"
