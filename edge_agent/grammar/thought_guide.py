"""What a thought says next, wherever the site and its state decide it: devices, tools, facts, numbers, truths.

A thought that has come to such a place goes on with one text (`forced`) or with one of several (`choices`), which the
model decides between. Text in and out; token_mask.py makes tokens of it.

Does not guard against: a wrong wish, the wrong device of those there are, or the wrong tool of those that it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from devices.site.nearest import nearest
from edge_agent.grammar.grammar import THOUGHT_CHARACTERS, Known, KnownTool, NumberArgument
from edge_agent.grammar.thought_answers import answers_of, listed_devices
from edge_agent.grammar.thought_calls import CONDITION, calls_of
from edge_agent.wire.markers import END_THINK, THINK

NO_TARGET = (" no device", " no area", " no scene")
NO_TOOL = " no such tool"
OUTSIDE = (", above.", ", below.")
MARKS, ENDS = (")", '"'), (".", ";", ",")
SMALL_WORDS = frozenset("the a an my our your in at on of for by from to".split())  # that tell no names apart
_IN_PLACE = re.compile(rf"(?:{THINK}|[:;]) ([^:;,()=]+): [^:;,]+ is$")
_PLACE = re.compile(rf"(?:{THINK}|[:;]) ([^:;,]+):$")
_LAST_NAME = re.compile(r"(\w*):")
_BEFORE_NAME = re.compile(rf"{THINK} |[:;,] | but | and ")
_ITS_TOOL = re.compile(r"\bis (\w+)(: [^:;,]*)?,$")
_WITH_TOOL = re.compile(r"\bis (\w+)(: [^:;,]*)?, (\w+)$")
_WISH = re.compile(rf"{THINK} ([^:]+): ")
_ALL_OF = re.compile(r"\bAll of (\w+)\($")
_LISTED = re.compile(r"\bAll of (\w+)\([^()]*\)(,?)$")
_LEFT_OUT = re.compile(r"\bAll of (\w+)\([^()]*\) but [^;]+ is (\w+)(,?)$")
_BUT = re.compile(r"\bAll of (\w+)\([^()]*\) but ([^;]+)$")
_ARGUMENT = re.compile(r"(\w+) (\w+)=$")
_CALL = re.compile(r"\bis (\w+)(?:: [^;,]*)?, (\w+) (?:[^;]* )?(\w+)=$")
_AXIS = re.compile(  # what is wished of one of several arguments
    rf"{THINK} (only|a bit more|a bit less|\d+(?:\.\d+)? (?:more|less)) (?!if:)(\w+): "
)
STAYS = "0 more"
PREFIXES = frozenset(  # of thoughts, that name what is wanted
    ("both", "in turn", "a hint", "a question", "a remark", "not to be done", "no value", "if", "unless", "only if",
     "if or else", "all", "any", "which", "which not", "how many", "only", "undo")
)  # fmt: skip
QUESTIONS = (" which", " any", " how")  # as thoughts about them begin; also "a question:", and "all:" of devices
_NOT_AGAIN = {THINK: (" not", *QUESTIONS), f"{THINK} a": (" question", " remark")}  # starts, where the same is wanted
Name = TypeVar("Name", str, frozenset[str])
_WISHED = re.compile(rf"{THINK} ([^:]+): .*\bis (\w+):.*, (\w+) (\w+)=$")
_HANGS_ON = re.compile(rf"{THINK} {CONDITION}: .*\bis (\w+):([^;]*), ([^,;:=]+):$")
_COMPARED = re.compile(r"(\w+) (above|below) (-?\d+(?:\.\d+)?)")
_TO_DIRECTION = re.compile(rf"{THINK}(?: a bit| much| \d+(?:\.\d+)?)?")  # `more` or `less` may come
_BY = re.compile(r"(\d+(?:\.\d+)?) (more|less)")
_GIVEN = re.compile(r"\b(\w+)=(-?\d+(?:\.\d+)?), \1:$")


class ThoughtGuide:
    """What is known of a site and its state, asked for by what a thought has said so far."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._facts, self._numbers = dict(known.facts), known.numbers
        self._devices = only_meanings(known.names)
        self._by_words = only_meanings((_words_of(name), target) for name, target in known.names)
        self._words: dict[str, list[frozenset[str]]] = {}  # of each name, by what it is the name of
        for name, target in known.names:
            self._words.setdefault(target, []).append(_words_of(name))
        self._truths = {(device, words): so for device, words, so in known.truths}
        self._wishes = {words for one in known.numbers for words, _ in one.wished}
        self._targets = tuple(f" {target}" for target in known.targets)
        self._has_areas = len(known.targets) > len(known.devices)  # or scenes: then more than devices can be meant
        self._tools = {one.tool: one for one in known.tools}
        self._again, self._off = dict(known.again), dict(known.off)
        self._within = ""  # how a thought ends that has just been given bounds that its value is within
        self._end = ""  # the same, if its tool takes no other argument
        self._whole = ""  # a thought with what was forced last, if that ends with a mark

    def forced(self, thought: str) -> str:
        """Return what must come next; "" if nothing must. A mark at its end is left to `choices`.

        In training a bracket or quotation mark is one token with the full stop after it: alone it would say that
        something else comes.
        """
        text = self._forced(thought) or self._next_listed(thought)
        if len(text) + len(thought) > THOUGHT_CHARACTERS:
            return ""
        if not text.endswith(MARKS):
            return text
        self._whole = thought + text
        return text[:-1]

    def _forced(self, thought: str) -> str:
        if thought.endswith(":"):
            facts = (
                self._facts.get(_LAST_NAME.findall(thought)[-1], "") or self._bounds(thought) or self._truth(thought)
            )
            return facts or listed_devices(thought.removeprefix(f"{THINK} "), self._known)
        if thought.endswith("="):
            return self._wished_value(thought)
        if thought.endswith(" is"):
            if self._is_elsewhere(thought) or self._may_be_left_out(thought):
                return ""
            return self._device(thought.removesuffix(" is"))
        if thought == THINK:
            return " All of" if self._known.is_except and not self._has_areas else self._short_wish()
        if thought == f"{THINK} undo,":
            return f" {self._known.undo}." if self._known.undo else ""
        if thought.endswith("(") and (group := _ALL_OF.search(thought)) and group[1] in self._tools:
            return f"{self._tools[group[1]].listed})"
        if thought.endswith(" but") and (group := _LISTED.search(thought.removesuffix(" but"))):
            return self._left_elsewhere(group[1])
        if thought.endswith(",") and (group := _LISTED.search(thought) or _LEFT_OUT.search(thought)):
            return f" {group[1]}" if group[1] in self._tools and self._tools[group[1]].arguments else ""
        return ""

    def _short_wish(self) -> str:
        """Return how a thought begins whose request is nothing but a wish for the number of what was spoken of last."""
        settable = {
            one.device: one for one in self._numbers if one.now is not None and one.device in self._known.recent
        }
        if not self._known.short_wish or len(settable) != 1:
            return ""
        ((device, number),) = settable.items()
        has_axes = len(self._arguments(device, number.tool)) > 1
        return "" if has_axes else f" {self._known.short_wish}: it is {device}:"

    def _next_listed(self, thought: str) -> str:
        """Return the next device of a list of wishes that a thought has left out, if it has come to a wish's end."""
        if not (left := self._left_out(thought)):
            return ""
        wishes, is_next = thought.removesuffix(";"), thought.endswith(";")
        called, is_end = _WITH_TOOL.search(wishes), self._end and wishes.endswith(self._end)
        if is_end or (called and self._after_tool(called[1], called[3]) == ENDS):
            return f"{'' if is_next else ';'} {left[0][0]} is"
        return ""

    def _left_out(self, thought: str) -> list[tuple[str, str]]:
        """Return the listed devices that a thought about plain wishes does not name."""
        if not self._known.listed:
            return []
        wish = thought.removeprefix(f"{THINK} ").split(":")[0]
        is_plain = not wish.startswith("not ") and (
            wish == "both" or " is " in wish or self._is_relative(thought) or self._in_place(wish)
        )
        return [one for one in self._known.listed if is_plain and not re.search(rf"\b{one[1]}\b", thought)]

    def _device(self, thought: str) -> str:
        """Return the device of the name that a thought ends with, if it is one."""
        names = [thought[match.end() :] for match in _BEFORE_NAME.finditer(thought)]  # the longest first
        exact = (self._devices[name] for name in names if name in self._devices)
        turned = (self._by_words[words] for name in names if (words := _words_of(name)) in self._by_words)
        found = next(exact, "") or next(turned, "")
        return f" {found}" if found else ""

    def choices(self, thought: str) -> tuple[str, ...]:
        """Return the texts of which one must come next; none if anything may."""
        if thought == self._whole[:-1] and self._whole:
            is_within = self._within and self._whole.endswith(self._within)
            ends = self._after_all(self._whole) or (ENDS[:-1] if is_within else ENDS)
            if self._end and self._whole.endswith(self._end) and self._left_out(thought):
                ends = (";",)
            return (self._whole[-1], *(self._whole[-1] + end for end in ends if end in ENDS))
        if thought.endswith(" it is") and self._known.recent:
            said = [one for one in re.findall(r"\bis (\w+)", thought) if f" {one}" in self._targets]
            return tuple(f" {one}" for one in dict.fromkeys((*self._known.recent, *said)))
        if thought.endswith(" is"):
            if left_out := self._may_be_left_out(thought):
                return tuple(f" {one}" for one in left_out)
            return NO_TARGET if self._is_elsewhere(thought) else self._named(_last_name(thought.removesuffix(" is")))
        if (place := _PLACE.search(thought)) and (there := self._in_place(place[1])):
            return there
        if thought.endswith(",") and (named := _ITS_TOOL.search(thought)):
            tools = [f" {one.tool}" for one in self._tools.values() if named[1] in one.devices]
            tools = [one for one in tools if one[1:] in self._again] or tools
            tools = [one for one in tools if one[1:] == self._off.get(named[1])] or tools
            is_called = not named[2] or self._is_relative(thought)  # after facts other things may come, as conditions
            return (*tools, NO_TOOL) if tools and is_called else ()
        if (called := _WITH_TOOL.search(thought)) and (not called[2] or self._is_relative(thought)):
            return self._after_tool(called[1], called[3])
        if thought.endswith(" All of"):
            return tuple(f" {one.tool}(" for one in self._tools.values() if self._is_off(one))
        return self._after_all(thought)

    def _is_off(self, tool: KnownTool) -> bool:
        """Return whether a tool does nothing else with devices that are to be off."""
        return all(self._off.get(device, tool.tool) == tool.tool for device in tool.devices)

    def _named(self, name: str) -> tuple[str, ...]:
        """Return what a name that is no device's own may mean: what shares its noun and most words; else anything.

        A name of words that are all the site's, but of no thing together ("kitchen fan"), means nothing that is here.
        """
        said, noun = _words_of(name), _words_of(name.split(" ")[-1])
        of_each = [frozenset().union(*words) for words in self._words.values()]
        if self._targets and said <= frozenset().union(*of_each) and not any(said <= words for words in of_each):
            return NO_TARGET
        shared = {
            target: max((len(said & words) for words in self._words.get(target[1:], ()) if noun <= words), default=0)
            for target in self._targets
        }
        most = max(shared.values(), default=0)
        return (*(target for target, count in shared.items() if count == most), *NO_TARGET) if shared else ()

    def _is_elsewhere(self, thought: str) -> bool:
        """Return whether a thought names something in a place after which no device is called, as `cellar: lamp is`.

        False where areas say what is where.
        """
        if (there := _IN_PLACE.search(thought)) is None:
            return False
        place = there[1]
        is_wish = (
            place in PREFIXES or place in self._wishes or _BY.fullmatch(place) or _AXIS.match(f"{THINK} {place}: ")
        )
        if is_wish or self._has_areas:
            return False
        said = _words_of(place) - {"room"}
        return bool(said) and not any(said & words for names in self._words.values() for words in names)

    def _in_place(self, place: str) -> tuple[str, ...]:
        """Return the devices that are called after a place, each with its title; none where areas say what is where."""
        said = _words_of(place) - {"room"}
        if not said or self._has_areas:
            return ()
        there = (one for one in self._known.devices if any(said <= words for words in self._words.get(one.device, ())))
        return tuple(f" {one.title} is {one.device}" for one in there)

    def _is_relative(self, thought: str) -> bool:
        """Return whether a thought begins with a wish for a value that is named by what it is now."""
        wish = _WISH.match(thought)
        return bool(_AXIS.match(thought) or (wish and (_BY.fullmatch(wish[1]) or wish[1] in self._wishes)))

    def _after_tool(self, device: str, tool: str) -> tuple[str, ...]:
        """Return what may follow a tool of a device: its first argument, an end, or the rest of a longer name."""
        if tool not in self._tools or device not in self._tools[tool].devices:
            return ()
        arguments, others = self._tools[tool].arguments, self._tools.values()
        longer = [
            one.tool for one in others if one.tool.startswith(tool) and one.tool != tool and device in one.devices
        ]
        ends = (f" {arguments[0]}",) if arguments else ENDS
        return (*ends, *(one.removeprefix(tool) for one in longer))

    def _after_all(self, thought: str) -> tuple[str, ...]:
        """Return what may follow all devices of a tool, or one of them that is left out."""
        group, left_out = _LISTED.search(thought), _LEFT_OUT.search(thought)
        found = group or left_out
        if not found or found[1] not in self._tools or thought.endswith(","):
            return ()
        tool = self._tools[found[1]]
        ends = (",",) if tool.arguments else (".", ";")
        if group:
            if self._known.is_except or self._elsewhere(tool):
                return (" but",)
            return ends if self._known.is_whole else (" but", *ends)
        assert left_out
        may_go_on = [one for one in self._targets if one != f" {left_out[2]}" and one.startswith(f" {left_out[2]}")]
        if may_go_on or left_out[2] not in tool.devices:
            return ()
        is_named = not self._has_areas and left_out[2] in self._known.named
        return ends if is_named and not self._may_be_left_out(thought) else (" and", *ends)

    def _may_be_left_out(self, thought: str) -> list[str]:
        """Return the devices that the request names, of those that a thought may leave out of all of a tool next."""
        but = _BUT.search(thought)
        if but is None or self._has_areas or but[1] not in self._tools:
            return []
        so_far = re.findall(r"\bis (\w+)", but[2])
        return [one for one in self._tools[but[1]].devices if one in self._known.named and one not in so_far]

    def forbidden(self, thought: str) -> tuple[str, ...]:
        """Return texts that must not come next: "above" of what is within, the other direction, how no wish starts."""
        if self._within and thought.endswith(self._within):
            return OUTSIDE
        opposite = {"more": (" less",), "less": (" more",)}.get(self._known.direction, ())
        if opposite and _TO_DIRECTION.fullmatch(thought):
            return opposite
        starts = list(_NOT_AGAIN.get(thought, ())) if self._again else []
        if self._known.is_wish:
            starts += (QUESTIONS if self._has_areas else (*QUESTIONS, " all")) if thought == THINK else ()
            starts += (" question",) if thought == f"{THINK} a" else ()
        return tuple(starts)

    def _elsewhere(self, tool: KnownTool) -> list[str]:
        """Return those of a tool's devices that are not in the place that a request is about, if others of it are."""
        there = {*self._known.there}
        is_split = there & {*tool.devices} and not self._has_areas
        return [one for one in tool.devices if one not in there] if is_split else []

    def _left_elsewhere(self, tool: str) -> str:
        """Return what leaves them out of all of the tool: ` hall light is hall_light and door is door`."""
        titles = {one.device: one.title for one in self._known.devices}
        away = self._elsewhere(self._tools[tool]) if tool in self._tools else []
        return " and".join(f" {titles.get(one, one)} is {one}" for one in away)

    def calls(self, thought: str) -> str:
        """Return what must come after a thought and its end marker: the rest of the calls that it has named."""
        named, said = thought.removeprefix(THINK).removeprefix(" ").split(END_THINK, 1)
        calls = calls_of(named, self._known)
        return calls[len(said) :] if calls.startswith(said) else ""

    def answers(self, thought: str) -> tuple[str, ...]:
        """Return texts of which one must come after a thought and its end marker: the rest of what it answers."""
        named, said = thought.removeprefix(THINK).removeprefix(" ").split(END_THINK, 1)
        answers = answers_of(named, self._known)
        return tuple(one[len(said) :] for one in answers if one.startswith(said) and one != said)

    def _bounds(self, thought: str) -> str:
        """Return the bounds of the argument that a thought has just given a value, and whether it is outside."""
        if (given := _GIVEN.search(thought)) is None:
            return ""
        named = re.findall(r"\w+", thought[: given.start()])[-1:]
        call = _CALL.search(f"{thought[: given.start()]}{given[1]}=")
        for one in self._numbers:
            is_called = call and (one.device, one.tool) == call.groups()[:2]
            if one.argument == given[1] and (is_called or [one.tool] == named):
                value, (above, below) = float(given[2]), OUTSIDE
                outside = above if value > one.maximum else below if value < one.minimum else ""
                self._within, after = "" if outside else given[0] + one.bounds, self._next_argument(one)
                self._end = "" if after else self._within
                return one.bounds + (outside or after)
        return ""

    def _next_argument(self, argument: NumberArgument) -> str:
        """Return what a thought goes on with after an argument of a tool that takes more."""
        arguments = self._tools[argument.tool].arguments if argument.tool in self._tools else ()
        after = arguments[arguments.index(argument.argument) + 1 :] if argument.argument in arguments else ()
        return f" {after[0]}=" if after else ""

    def _arguments(self, device: str, tool: str) -> set[str]:
        """Return the numbers that a tool takes for a device."""
        return {one.argument for one in self._numbers if (one.device, one.tool) == (device, tool)}

    def _truth(self, thought: str) -> str:
        """Return whether what a condition hangs on is so, if a thought has come to that."""
        if (hangs := _HANGS_ON.search(thought)) is None:
            return ""
        device, facts, words = hangs.groups()
        if (compared := _COMPARED.fullmatch(words)) is None:
            so = self._truths.get((device, words), "")
        else:
            found = re.search(rf"\b{compared[1]}=(-?\d+(?:\.\d+)?)\b", facts)
            if found is None:
                return ""
            value, bound = float(found[1]), float(compared[3])
            so = "yes" if (value > bound if compared[2] == "above" else value < bound) else "no"
        return f" {so}" if so else ""

    def _wished_value(self, thought: str) -> str:
        """Return the value of the argument that a thought comes to, if the request or what is so now names it."""
        to, call = _ARGUMENT.search(thought), _CALL.search(thought)
        if to and not _WISHED.search(thought):
            meant = [one for one in self._numbers if (one.tool, one.argument) == to.groups()]
            asked = {one.asked for one in meant if not call or one.device == call[1]}
            given = dict(self._again.get(to[1], ())).get(to[2], "") or (asked.pop() if len(asked) == 1 else "")
            if given:
                return f"{given}, {to[2]}:"
        if call is None:
            return ""
        device, tool, argument = call.groups()
        one = next(
            (one for one in self._numbers if (one.device, one.tool, one.argument) == (device, tool, argument)), None
        )
        if one is None or one.now is None:
            return ""
        wish, moved, axes = _WISHED.search(thought), _AXIS.match(thought), self._arguments(device, tool)
        if moved and len(axes) > 1 and moved[2] in axes:
            is_moved = argument == moved[2]
            value = _moved_to(moved[1] if is_moved else STAYS, one)
        else:
            value = _moved_to(wish[1], one) if wish else ""
        return f"{value}, {argument}:" if value else ""


def only_meanings(names: Iterable[tuple[Name, str]]) -> dict[Name, str]:
    """Return what each name means that is the name of one thing alone."""
    targets: dict[Name, set[str]] = {}
    for name, target in names:
        targets.setdefault(name, set()).add(target)
    return {name: only for name, (only, *more) in targets.items() if not more}


def _words_of(name: str) -> frozenset[str]:
    """Return the words of a name, so that "bench light" is "light at the bench"."""
    return frozenset(word.removesuffix("s") for word in name.lower().split() if word not in SMALL_WORDS)


def _last_name(thought: str) -> str:
    """Return what a thought ends with, after the last mark before which no name begins."""
    starts = [match.end() for match in _BEFORE_NAME.finditer(thought)]
    return thought[starts[-1] :] if starts else ""


def _moved_to(words: str, argument: NumberArgument) -> str:
    """Return the value that words name by what an argument is now; "" if they name none."""
    assert argument.now is not None
    if by := _BY.fullmatch(words):
        wanted = argument.now + float(by[1]) * (1 if by[2] == "more" else -1)
        return f"{nearest(wanted, argument.minimum, argument.maximum, argument.step):g}"
    return dict(argument.wished).get(words, "")
