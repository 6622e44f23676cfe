"""Cases as a person makes them at the terminal: typed anew, or judged from what a box was asked.

Each case is appended to its file as soon as it is complete, one line of YAML, so that nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from devices.durable import write_file
from devices.errors import UsageError, did_you_mean
from devices.site.schema import Value
from devices.site.site import Site
from devices.site.tools import Command
from edge_agent.agent.asked import Asked
from edge_agent.evaluation.own.own_cases import OwnCase, read_own_cases

HEADER = "# Cases for `edgewright eval --cases`: what is said, and what must be so afterwards."
EXPECTED = "What must be so afterwards? device.property=value, several with commas; nothing; or confirm DEVICE"
START = "What is so before? (empty: as the site starts)"
BREAK_S, MOST_TURNS = 120.0, 5  # a conversation of real use goes on for as long, at most
Read = Callable[[str], str | None]  # shows a prompt, returns a line, None at the end


@dataclass
class CaseFile:
    """A file of own cases that grows by a line a case. Raises UsageError if what is there is none."""

    path: Path
    site: Site

    def __post_init__(self) -> None:
        cases = read_own_cases(self.path, self.site) if self.path.exists() else []
        self.known = {tuple(turn.ask for turn in case.turns) for case in cases}
        self.count = len(cases)

    def add(self, case: dict[str, Any]) -> None:
        """Append a case. Raises UsageError if it is none."""
        checked = OwnCase.model_validate(case)
        before = self.path.read_text(encoding="utf-8") if self.path.exists() else f"{HEADER}\n"
        ends = "" if before.endswith("\n") else "\n"
        write_file(self.path, f"{before}{ends}- {json.dumps(case, ensure_ascii=False)}\n".encode())
        self.known.add(tuple(turn.ask for turn in checked.turns))
        self.count += 1


def new_cases(file: CaseFile, read: Read, tell: Callable[[str], None]) -> int:
    """Ask for cases until an empty line; return how many were made."""
    made = 0
    while ask := read("What is said? (empty: done) "):
        expected = _until_right(read, tell, f"{EXPECTED}: ", file.site, parse_expected)
        start = _until_right(read, tell, f"{START}: ", file.site, parse_state)
        if expected is None or start is None:
            break
        file.add({"ask": ask, **({"start": start} if start else {}), **expected})
        made += 1
    return made


def _until_right(
    read: Read, tell: Callable[[str], None], prompt: str, site: Site, parse: Callable[[str, Site], dict[str, Any]]
) -> dict[str, Any] | None:
    """Ask until an answer can be parsed; None at the end of the input."""
    while (line := read(prompt)) is not None:
        try:
            return parse(line, site)
        except UsageError as error:
            tell(f"  {error}{f' ({error.hint})' if error.hint else ''}")
    return None


def parse_expected(text: str, site: Site) -> dict[str, Any]:
    """Return the keys of a case that say what must be so afterwards.

    Raises:
        UsageError: it names what the site has not, or says nothing.
    """
    words = text.split()
    if words[:1] == ["confirm"] and len(words) == 2:
        return {"expect": {}, "needs": _known(words[1], list(site.devices), "device")}
    if not words:
        raise UsageError("say what must be so", hint="or: nothing")
    return {"expect": {} if words == ["nothing"] else parse_state(text, site)}


def parse_state(text: str, site: Site) -> dict[str, Value]:
    """Return `device.property=value, …` as values by device.property; nothing for an empty text.

    Raises:
        UsageError: it is not of that form, names what the site has not, or a value that the property cannot have.
    """
    found: dict[str, Value] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        key, sign, said = (one.strip() for one in part.partition("="))
        device, _, name = key.partition(".")
        if not sign or not name:
            raise UsageError(f"{part!r} is not device.property=value")
        properties = site.devices[_known(device, list(site.devices), "device")].properties
        schema = properties[_known(name, list(properties), f"property of {device}")]
        named = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
        value = named.get(said.lower(), said) if schema.type == "boolean" else _number_or_text(said)
        if problem := schema.problem_with(value):
            raise UsageError(f"{key}: {problem}")
        found[key] = value
    return found


def _number_or_text(text: str) -> Value:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def _known(name: str, known: Sequence[str], what: str) -> str:
    if name not in known:
        raise UsageError(f"no {what} is called {name}", hint=did_you_mean(name, known, f"there are {', '.join(known)}"))
    return name


def conversations(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Yield requests that belong together: of one conversation, without a long break, MOST_TURNS at most."""
    ordered = sorted(asked, key=lambda one: one.conversation)  # stable: each stays in its order
    for _, of_one in groupby(ordered, key=lambda one: one.conversation):
        going: list[Asked] = []
        for one in of_one:
            if going and (one.time_s - going[-1].time_s > BREAK_S or len(going) == MOST_TURNS):
                yield going
                going = []
            going.append(one)
        yield going


def judge(file: CaseFile, asked: Sequence[Asked], read: Read, tell: Callable[[str], None]) -> int:
    """Show what was asked of a box and what came of it, and make cases of what a person says about it.

    A conversation is judged turn by turn until one was wrong: what came after it began in a wrong state.

    Returns:
        How many cases were made.
    """
    made = 0
    for going in conversations(asked):
        turns: list[dict[str, Any]] = []
        for one in going:
            tell("\n".join(["", f'"{one.request}"', *map(_action_text, one.actions), f"  {one.answer}"]))
            said = read("right? [y]es, [n]o, [s]kip, [q]uit: ")
            if said is None or said[:1] in {"q"}:
                return made + _add(file, going, turns)
            if said[:1] not in {"y", "n"}:
                break
            if said[:1] == "y":
                right: dict[str, Any] | None = _what_happened(one, file.site)
            else:
                right = _until_right(read, tell, f"{EXPECTED}: ", file.site, parse_expected)
            if right is None:
                return made + _add(file, going, turns)
            turns.append({"ask": one.request, **right})
            if said[:1] == "n":
                break
        made += _add(file, going, turns)
    return made


def _add(file: CaseFile, going: Sequence[Asked], turns: list[dict[str, Any]]) -> int:
    if not turns or tuple(turn["ask"] for turn in turns) in file.known:
        return 0
    start = {
        f"{device}.{name}": value
        for device, values in going[0].state.items()
        for name, value in values.items()
        if device in file.site.devices and name in file.site.devices[device].properties
    }
    whole = turns[0] if len(turns) == 1 else {"turns": turns}
    file.add({"start": start, **whole})
    return 1


def _what_happened(one: Asked, site: Site) -> dict[str, Any]:
    """Return what the actions of a request made so, as what must be so."""
    expect: dict[str, Value] = {}
    needs = ""
    for action in one.actions:
        command = Command(action["device"], action["action"], action["input"])
        if action["status"] == "needs_confirmation":
            needs = command.device
        elif action["status"] == "done" and command.device in site.devices:
            effect = site.devices[command.device].actions[command.action].effect(command.input)
            expect |= {f"{command.device}.{name}": value for name, value in effect.items()}
    return {"expect": expect, **({"needs": needs} if needs else {})}


def _action_text(action: dict[str, Any]) -> str:
    given = ", ".join(f"{name}={json.dumps(value)}" for name, value in action["input"].items())
    return f"  {action['device']}.{action['action']}({given}): {action['status'].replace('_', ' ')}"
