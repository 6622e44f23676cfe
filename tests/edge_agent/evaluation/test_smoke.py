"""A self-test passes where an engine does what was recorded, and fails where it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from devices.errors import GateError, UnavailableError, UsageError
from devices.simulation.world import World
from devices.site.site import load_site
from devices.site.tools import Command
from edge_agent.bundle import MANIFEST, SMOKE, SMOKE_RECORD, BundleTampered, open_bundle
from edge_agent.evaluation import selftest as selftesting
from edge_agent.evaluation.cases import Case
from edge_agent.evaluation.selftest import NOTHING_TESTED, selftest, selftest_for
from edge_agent.evaluation.smoke import Smoke, SmokeReply, compare, read_smoke
from tests.tiny_bundle import make_tiny_bundle, rewrite_manifest

STATE = World(load_site("home")).snapshot()
ON, OFF = Command("kitchen_light", "on", {}), Command("kitchen_light", "off", {})
LIT = STATE | {"kitchen_light": {"on": True, "brightness": 100}}


def case(number: int) -> Case:
    return Case(f"c{number}", "call", f"ask {number}", STATE, "08:00", (), False, (ON,), False, ("done",), LIT, ())


def made_of(count: int) -> Smoke:
    reply = SmokeReply("", (ON,), ("done",), LIT, "The light is on.", "answer")
    cases = tuple(map(case, range(count)))
    return Smoke(cases, tuple(replace(reply, id=one.id) for one in cases))


SMOKE_20 = made_of(20)
IDLE = {"commands": (), "statuses": (), "state_after": STATE}
SILENT = replace(SMOKE_20.record[3], **IDLE)  # type: ignore[arg-type]


def with_replies(*others: SmokeReply) -> list[SmokeReply]:
    changed = {one.id: one for one in others}
    return [changed.get(one.id, one) for one in SMOKE_20.record]


def test_the_same_replies_pass() -> None:
    found = compare(SMOKE_20, SMOKE_20.record)
    assert found.is_passed and str(found) == "self-test: 20 cases, 0 not as recorded (1 may be)"
    found.require(Path("box"))


def test_other_words_are_reported_and_do_not_count() -> None:
    found = compare(SMOKE_20, with_replies(replace(SMOKE_20.record[0], answer="It is lit.")))
    assert found.is_passed and not found.differing and str(found).endswith(", 1 in other words")


def test_one_in_twenty_may_differ_and_no_more() -> None:
    found = compare(SMOKE_20, with_replies(SILENT))
    assert [one.id for one in found.differing] == ["c3"] and found.is_passed
    found = compare(SMOKE_20, with_replies(SILENT, replace(SILENT, id="c9")))
    with pytest.raises(GateError) as raised:
        found.require(Path("box"))
    assert str(raised.value) == (
        "box: self-test: 20 cases, 2 not as recorded (1 may be); "
        "c3 ('ask 3'): no call (answer) instead of kitchen_light.on() done"
    )
    few = made_of(19)
    assert not compare(few, [replace(few.record[0], **IDLE), *few.record[1:]]).is_passed  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["done", "failed", "unknown"])
def test_nothing_may_move_that_the_record_did_not_move(status: str) -> None:
    """Not even once, and not instead of something else."""
    for commands in ((ON, OFF), (OFF,)):
        wrong = replace(SMOKE_20.record[5], commands=commands, statuses=(status,) * len(commands))
        found = compare(SMOKE_20, with_replies(wrong))
        with pytest.raises(GateError, match=r"c5 .*kitchen_light\.off\(\) .*moves what the record does not move"):
            found.require(Path("box"))
    asked = replace(SMOKE_20.record[5], commands=(ON, OFF), statuses=("done", "refused"))
    assert compare(SMOKE_20, with_replies(asked)).is_passed


def test_an_end_state_that_is_another_counts() -> None:
    found = compare(SMOKE_20, with_replies(replace(SMOKE_20.record[0], state_after=STATE)))
    assert "kitchen_light.on at False and not True" in found.differing[0].said


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_tiny_bundle(tmp_path / "bundle", smoke=SMOKE_20)


def test_cases_and_record_are_read_as_they_were_written(bundle: Path) -> None:
    assert read_smoke(open_bundle(bundle)) == SMOKE_20
    assert set(json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))["files"]) >= {SMOKE, SMOKE_RECORD}


@pytest.mark.parametrize("change", ["cut", "shorter", "swapped", "other keys", "no list"])
def test_a_record_of_something_else_is_refused(bundle: Path, change: str) -> None:
    path = bundle / SMOKE_RECORD
    lines = path.read_text(encoding="utf-8").splitlines()
    changed = {
        "cut": [*lines[:-1], lines[-1][:-1]],
        "shorter": lines[:-1],
        "swapped": [lines[1], lines[0], *lines[2:]],
        "other keys": [lines[0].replace('"answer"', '"said"'), *lines[1:]],
        "no list": [*lines[:-1], "3"],
    }[change]
    path.write_text("\n".join(changed) + "\n", encoding="utf-8")
    rewrite_manifest(bundle)
    with pytest.raises(BundleTampered, match="smoke_record"):
        read_smoke(open_bundle(bundle))


def test_a_bundle_without_a_record_is_not_taken_for_one_that_passed(bundle: Path, tmp_path: Path) -> None:
    (bundle / SMOKE_RECORD).unlink()
    rewrite_manifest(bundle)
    assert selftest_for(tmp_path)(open_bundle(bundle)) == NOTHING_TESTED
    with pytest.raises(UsageError, match="no smoke cases"):
        selftest(bundle)


def test_an_engine_that_cannot_run_here_is_one_line_with_the_way_out(bundle: Path, tmp_path: Path) -> None:
    """The tiny bundle's model has a header and nothing that llama.cpp could run."""
    with pytest.raises(UnavailableError, match="the self-test cannot run here") as raised:
        selftest_for(tmp_path)(open_bundle(bundle))
    assert "--no-selftest" in raised.value.hint
    assert not (tmp_path / "state").exists()


def test_a_failed_self_test_is_a_failed_gate(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare(SMOKE_20, with_replies(SILENT, replace(SILENT, id="c9")))
    monkeypatch.setattr(selftesting, "run_selftest", lambda *given: found)
    with pytest.raises(GateError, match="2 not as recorded"):
        selftest_for(tmp_path)(open_bundle(bundle))
