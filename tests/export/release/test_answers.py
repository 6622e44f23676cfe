"""What boxes say of a release, and that it goes no further when one did not take it; and a small fleet of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import edgewright
from benchmarks import fleet
from devices.errors import GateError, UsageError
from edge_agent.bundle import open_bundle
from export.release.answers import ANSWER, Answer, read_answers
from export.release.check import check
from export.release.trust import BOX_ID, TRUST
from tests.export.release.test_release import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.publish(0)
    made.pull()
    return made


def fail(_: object) -> str:
    raise GateError("it says garbage")


def collected(world: World) -> Path:
    """Return a folder with the box's answer."""
    folder = world.folder / "answers"
    folder.mkdir(exist_ok=True)
    shutil.copy(world.box / TRUST / ANSWER, folder / "yard.json")
    return folder


def test_a_box_says_what_came_of_a_release(world: World) -> None:
    box, bundle = (world.box / TRUST / BOX_ID).read_text(), open_bundle(world.bundles[0]).manifest.id
    told = Answer(box=box, channel="stable", sequence=1, bundle=bundle, state="installed")
    assert read_answers(collected(world)) == [told]
    world.publish(1, percent=0)
    world.pull()
    assert read_answers(collected(world)) == [told]  # it waits: it has tried nothing else
    world.publish(1)
    with pytest.raises(GateError):
        world.pull(selftest=fail)
    (failed,) = read_answers(collected(world))
    assert (failed.state, failed.sequence, failed.reason) == ("failed", 3, "it says garbage")
    written = (world.box / TRUST / ANSWER).stat().st_mtime_ns
    world.publish(0)
    assert world.pull() == "current"  # and says so, of the later release
    assert read_answers(collected(world))[0].sequence == 4
    assert (world.box / TRUST / ANSWER).stat().st_mtime_ns > written


def test_an_answer_is_written_once(world: World) -> None:
    before = (world.box / TRUST / ANSWER).stat()
    assert world.pull() == "current"
    assert (world.box / TRUST / ANSWER).stat().st_ino == before.st_ino


def test_a_release_goes_on_only_if_every_box_took_it_and_enough_answered(world: World) -> None:
    world.publish(1, channel="canary")
    with pytest.raises(GateError, match=r"was taken by 0 of the boxes in .*, not by 1"):
        world.publish(1, answers=collected(world))  # what it says is of another bundle
    with pytest.raises(GateError):
        world.pull(channel="canary", selftest=fail)
    with pytest.raises(GateError, match=r"was not taken by 1 of the boxes: .*: it says garbage"):
        world.publish(1, answers=collected(world))
    assert [one.release.sequence for one in check(world.repo) if one.channel == "stable"] == [1]
    assert world.pull(channel="canary") == "installed"  # it was a full disk, say
    shutil.copy(collected(world) / "yard.json", world.folder / "answers" / "again.json")
    with pytest.raises(GateError, match=r"was taken by 1 of the boxes in .*, not by 2"):  # a box counts once
        world.publish(1, answers=collected(world), at_least=2)
    world.publish(1, answers=collected(world))
    assert [one.release.sequence for one in check(world.repo) if one.channel == "stable"] == [2]


@pytest.mark.parametrize("text", ["{", '{"schema": "answer/v1", "x": 1}', "[" * 9999])
def test_what_is_no_answer_is_named(world: World, text: str) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        world.publish(0, answers=world.folder / "none")
    (collected(world) / "b.json").write_text(text)
    with pytest.raises(UsageError, match=r"b\.json is no box's answer"):
        world.publish(0, answers=world.folder / "answers")


def test_the_command(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["repo", "publish", str(world.repo), str(world.bundles[0]), "--keys", str(world.keys.folder)]
    words += ["--answers", str(collected(world)), "--at-least"]
    assert edgewright.main([*words, "2"]) == 5
    assert "was taken by 1 of the boxes in" in capsys.readouterr().err
    assert edgewright.main([*words, "1"]) == 0


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_small_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """benchmarks/fleet.py with few boxes; and that it would notice a release that nothing stops."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(fleet, "SLOW_S", 0)
    monkeypatch.setattr(fleet, "CANARIES", 0.2)
    monkeypatch.setattr(fleet, "MOST_TRIED", 1)
    monkeypatch.setattr(fleet, "WAVE_DAYS", 1)
    found = fleet.rollout(tmp_path, 8, 3, workers=1)
    assert [one for one in fleet.problems(found) if not one.startswith("bad_on_some")] == []
    assert found["bad"]["tried"] == found["good"]["canaries"] and found["good"]["arrived"] > 0
    found["bad"] |= {"stopped": "", "run_it": 1, "tried": 0}
    found["back"]["arrived"] -= 1
    assert len(fleet.problems(found)) >= 4
