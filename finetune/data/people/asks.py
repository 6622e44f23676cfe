"""The corpus of requests in people's words: finetune/asks, one file a kind of device and one a form of speech."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from devices.site.device import Device
from devices.site.phrasings import Words
from devices.yaml_file import Strict, plain_values, read_model, read_yaml
from finetune.data.held_out import content_of

ASKS_FOLDER = Path(__file__).parents[2] / "asks"
Of = tuple[str, str]  # a kind of device, and one of its actions or properties


class AskedAction(Strict):
    """How people ask for one action of a device; keys without lines are left out.

    `ask` says it plainly, `pairs` of two records, `without` leaves the value out, `hints` ask without a request,
    `negated` wants that it is not done, `report` says that it was, `off` wants the value that stands for off. The
    others are ways to name a value: by the range (`max` to `three_quarters`) or by what it is now.
    """

    ask: Words = ()
    pairs: Words = ()
    without: Words = ()
    hints: Words = ()
    negated: Words = ()
    report: Words = ()
    off: Words = ()
    max: Words = ()
    min: Words = ()
    half: Words = ()
    quarter: Words = ()
    three_quarters: Words = ()
    more: Words = ()
    less: Words = ()
    a_bit_more: Words = ()
    a_bit_less: Words = ()
    much_more: Words = ()
    much_less: Words = ()
    more_by: Words = ()
    less_by: Words = ()
    double: Words = ()
    halve: Words = ()
    hints_more: Words = ()
    hints_less: Words = ()


class AskedProperty(Strict):
    """How people ask for a property: of one device (`yes`, `no`, `value`, `compare`), or of all of a kind."""

    yes: Words = ()
    no: Words = ()
    value: Words = ()
    compare: Words = ()
    which: Words = ()
    which_not: Words = ()
    how_many: Words = ()
    any: Words = ()
    all: Words = ()
    remarks: Words = ()


class KindAsks(Strict):
    """A file of finetune/asks/kinds. `model` names the one model of the kind that it is about, if not all."""

    kind: str
    model: str = ""
    actions: dict[str, AskedAction] = Field(default_factory=dict)
    questions: dict[str, AskedProperty] = Field(default_factory=dict)


Asked = TypeVar("Asked", bound=Strict)


class Asks:
    """The whole corpus. `forms` are the lists of the other files, by file and key.

    `more_actions` and `more_questions` are lines that came from elsewhere.

    `held_out` has the words of the requests in held_out/, which were written apart and nothing is trained on. What is
    said next in a conversation is not among them: "undo" is in everybody's words.
    """

    def __init__(self, folder: Path = ASKS_FOLDER) -> None:
        self.kinds = [read_model(path, KindAsks, "asks") for path in sorted((folder / "kinds").glob("*.yaml"))
                      if path.stem != "chitchat"]  # fmt: skip
        self.chitchat = _lists_in(folder / "kinds" / "chitchat.yaml")
        self.small_talk = {line: answer for answer, lines in self.chitchat.items() for line in lines}
        self.forms = {path.stem: _lists_in(path) for path in sorted(folder.glob("*.yaml"))}
        self.more_actions: Mapping[Of, AskedAction] = {}
        self.more_questions: Mapping[Of, AskedProperty] = {}
        cases = [
            case for path in sorted((folder / "held_out").glob("*.yaml")) for case in read_yaml(path, "cases").root
        ]
        self.held_out = {content_of(case["ask"] if "ask" in case else case["turns"][0]["ask"]) for case in cases}

    def joined_by(self, actions: Mapping[Of, AskedAction], questions: Mapping[Of, AskedProperty]) -> Asks:
        """Return the corpus with more lines, each once."""
        joined = copy(self)
        joined.more_actions, joined.more_questions = actions, questions
        return joined

    def action(self, device: Device, name: str) -> AskedAction:
        """Return how people ask for an action of a device; without any line if the corpus does not know it."""
        found = [one for one in self.kinds if one.kind == device.kind and name in one.actions]
        # a door is a cover that only opens and closes: the file with the fewest other actions knows it best
        whole = [one for one in found if device.actions.keys() <= one.actions.keys()] or found
        best = min(whole, key=lambda one: len(one.actions), default=None)
        return _joined(best.actions[name] if best else AskedAction(), self.more_actions.get((device.kind, name)))

    def property(self, device: Device, name: str) -> AskedProperty:
        """Return how people ask for a property of a device."""
        found = [one for one in self.kinds if name in one.questions]
        own = [one for one in found if one.kind == device.kind] or found
        best = min(own, key=lambda one: len(one.questions), default=None)
        return _joined(best.questions[name] if best else AskedProperty(), self.more_questions.get((device.kind, name)))

    def states(self, device: Device, name: str) -> list[AskedProperty]:
        """Return how people ask whether a property has one of its values: `docked`, or `armed` of `armed_away`."""
        values = device.properties[name].enum or ()
        return [
            asked
            for one in self.kinds
            if one.kind == device.kind
            for word, asked in one.questions.items()
            if any(value == word or str(value).startswith(f"{word}_") for value in values)
        ]

    def form(self, file: str, key: str) -> tuple[str, ...]:
        """Return a list of a form of speech."""
        return self.forms[file][key]


@cache
def load_asks() -> Asks:
    """Return the corpus that ships with Edgewright."""
    return Asks()


def _joined(own: Asked, more: Asked | None) -> Asked:
    if more is None:
        return own
    return own.model_copy(update={form: tuple(dict.fromkeys((*getattr(own, form), *lines))) for form, lines in more})


def _lists_in(path: Path) -> dict[str, tuple[str, ...]]:
    plain = plain_values(read_yaml(path, "asks").root)
    return {str(key): tuple(map(str, lines)) for key, lines in plain.items()}
