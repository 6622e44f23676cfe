"""Cases that a person writes, and how they are graded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from devices.errors import UsageError
from devices.site.site import load_site
from edge_agent.agent.simulation import Simulation
from edge_agent.engine.engine import Completion, ContextFull, Request
from edge_agent.evaluation.own.own_cases import Graded, read_own_cases, run_own_cases
from edge_agent.evaluation.own.own_report import table_of
from edge_agent.wire.chat_template import load_template
from tests.edge_agent.agent.test_agent import answer, calls, completion

HOME = load_site("home")
HELD_OUT = sorted((Path(__file__).parents[4] / "finetune" / "asks" / "held_out").glob("*.yaml"))


class ScriptedEngine:
    """Gives replies in order; one that is missing fails the test."""

    def __init__(self, *replies: str) -> None:
        self._replies = list(replies)
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.asked += requests
        return [completion(self._replies.pop(0)) for _ in requests]


def grade(tmp_path: Path, text: str, *replies: str) -> list[Graded]:
    path = tmp_path / "cases.yaml"
    path.write_text(text, encoding="utf-8")
    (case,) = read_own_cases(path, HOME)
    return run_own_cases([case], Simulation(HOME, load_template("chatml")), ScriptedEngine(*replies))  # type: ignore[arg-type]


LIGHT_ON = calls(("light_on", {"device": "kitchen_light"}))
DIM = calls(("light_brightness", {"device": "kitchen_light", "brightness": 50}))


@pytest.mark.parametrize(
    ("case", "replies", "problem"),
    [
        ("{ask: x, expect: {kitchen_light.on: true}}", [LIGHT_ON, answer("Done.")], ""),
        ("{ask: x, expect: {bedroom_lamp.on: true}}", [LIGHT_ON, answer("Done.")], "bedroom_lamp.on is False"),
        ("{ask: x, expect: {}}", [LIGHT_ON, answer("Done.")], "kitchen_light.brightness became 100"),
        ("{ask: x, expect_any: [{}, {kitchen_light.on: true}]}", [LIGHT_ON, answer("Done.")], ""),
        ("{ask: x, expect_range: {kitchen_light.brightness: [40, 60]}}", [DIM, answer("Done.")], ""),
        ("{ask: x, expect_range: {kitchen_light.brightness: [60, 80]}}", [DIM, answer("Done.")], "brightness is 50"),
        ("{ask: x, needs: front_door, expect: {}}",
         [calls(("lock_unlock", {"device": "front_door"})), answer("Not done.")], ""),
        ("{ask: x, needs: front_door, expect: {}}", [answer("No.")], "front_door was not asked to be confirmed"),
        ("{ask: x, calls: [{action: light.on, input: {}}], expect: {kitchen_light.on: true}}",
         [LIGHT_ON, answer("Done.")], ""),
        ("{ask: x, calls: [{action: order.find}]}", [answer("No.")], "order.find({}) was not called"),
        ("{ask: x, answer_has: [['off', 'dark']]}", [answer("It is OFF.")], ""),
        ("{ask: x, answer_has: [['off'], ['kitchen']]}", [answer("It is off.")], "the answer lacks kitchen"),
    ],
)  # fmt: skip
def test_a_request_is_graded_by_the_world(tmp_path: Path, case: str, replies: list[str], problem: str) -> None:
    (graded,) = grade(tmp_path, f"- {case}\n", *replies)
    assert (problem in graded.problems[0]) if problem else graded.problems == graded.ways == ()


@pytest.mark.parametrize(
    ("case", "replies", "ways"),
    [
        ("{ask: x, expect: {bedroom_lamp.on: true}}", [LIGHT_ON, answer("Done.")],
         ("wrong value or device", "moved something else")),
        ("{ask: x, expect: {bedroom_lamp.on: true}}", [answer("No.")], ("did nothing",)),
        ("{ask: x, expect: {bedroom_lamp.on: true}}", [answer("Which lamp?")], ("asked back",)),
        ("{ask: x, expect: {}, needs: front_door}", [answer("No.")], ("did not ask to confirm",)),
        ("{ask: x, calls: [{action: order.find}], answer_has: [[off]]}", [answer("No.")],
         ("call not made", "wrong answer")),
    ],
)  # fmt: skip
def test_a_failure_says_of_which_kind_it_is(
    tmp_path: Path, case: str, replies: list[str], ways: tuple[str, ...]
) -> None:
    (graded,) = grade(tmp_path, f"- {case}\n", *replies)
    assert graded.ways == ways


def test_a_conversation_goes_on_in_one_world(tmp_path: Path) -> None:
    text = """
- start: {kitchen_light.on: false}
  turns:
    - {ask: kitchen light on, expect: {kitchen_light.on: true}}
    - {ask: and off again, expect: {kitchen_light.on: false}}
"""
    off = calls(("light_off", {"device": "kitchen_light"}))
    graded = grade(tmp_path, text, LIGHT_ON, answer("Done."), off, answer("Done."))
    assert [(one.kind, one.problems) for one in graded] == [("first turn", ()), ("follow-up", ())]
    table = table_of([*graded, Graded("follow-up", "x", "y", (), ("z",))], shows_misses=True)
    assert "follow-up         1 of 2     50.0%" in table and "'x' -> 'y'" in table


class AskedEngine:
    """Replies by what was asked; is full for the prompts that ask for too much, until their beginning is forgotten."""

    def __init__(self) -> None:
        self.largest = 0

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.largest = max(self.largest, len(requests))
        return [self._reply(request.prompt) for request in requests]

    def _reply(self, prompt: str) -> Completion:
        last = prompt.rpartition("Request: ")[2]
        if prompt.count("Request: ") > 1 and last.startswith("again"):
            raise ContextFull("too long")
        if "<|im_start|>tool" in last:
            return completion(answer("Done."))
        return completion(LIGHT_ON if last.startswith("on") else DIM if last.startswith("dim") else answer("No."))


def test_cases_side_by_side_are_graded_as_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text(
        """
- {ask: on, expect: {kitchen_light.on: true}}
- {ask: nothing}
- turns: [{ask: dim, expect_range: {kitchen_light.brightness: [40, 60]}}, {ask: again}]
- {ask: on}
""",
        encoding="utf-8",
    )
    cases, found = read_own_cases(path, HOME), []
    for size in (1, 3):
        engine = AskedEngine()
        simulation = Simulation(HOME, load_template("chatml"))
        found.append(run_own_cases(cases, simulation, engine, batch_size=size))  # type: ignore[arg-type]
        assert engine.largest == size
    assert found[0] == found[1]
    assert [(one.ask, bool(one.problems)) for one in found[0]] == [
        ("on", False), ("nothing", False), ("dim", False), ("again", False), ("on", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "a file of cases is a list"),
        ("- {ask: x, expct: {}}", "expct"),
        ("- {ask: x, expect: {nowhere.on: true}}", "names nowhere.on, which home does not have"),
        ("- {ask: x, needs: nobody}", "names nobody"),
        ("- {turns: []}", "turns"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said) as error:
        read_own_cases(path, HOME)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("path", HELD_OUT, ids=lambda path: path.stem)
def test_the_held_out_requests_are_about_their_site(path: Path) -> None:
    site = load_site("home" if path.stem.startswith("home") else path.stem.removesuffix("_dev"))
    assert len(read_own_cases(path, site)) >= (50 if path.stem.endswith("_dev") else 60)
