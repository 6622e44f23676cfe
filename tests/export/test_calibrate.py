"""A measured threshold goes into the bundle, whole, and the agent of that bundle keeps it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from devices.errors import GateError, UsageError
from edge_agent.agent.session import open_session
from edge_agent.bundle import CONFIDENCE, BundleTampered, Confidence, open_bundle
from edge_agent.evaluation.models.placement import Placement
from edge_agent.evaluation.own.own_cases import Graded
from export.bundle import calibrate as calibrating
from export.bundle.writer import put_file
from export.flash.flash import flash
from tests.export.conftest import Tiny
from tests.tiny_bundle import make_tiny_bundle, rewrite_manifest

CASES = "- {ask: kitchen light on, kind: act, expect: {kitchen_light.on: true}}\n"


def turns(wrong: int, count: int = 40) -> list[Graded]:
    """Turns of which the `wrong` least sure ones are wrong, and one in which nothing was done."""
    found = [
        Graded("act", "ask", "", ("done",), ("wrong",) if number < wrong else (), (number + 1) / (count + 1))
        for number in range(count)
    ]
    return [*found, Graded("chat", "hello", "Hello.", (), ())]


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(CASES)
    return path


def calibrate(bundle: Path, cases: Path, graded: list[Graded], monkeypatch: pytest.MonkeyPatch) -> Confidence:
    monkeypatch.setattr(calibrating, "grade_own_cases", lambda *given: graded)
    return calibrating.calibrate(bundle, cases, 0.1, Placement())[0]


def test_the_threshold_is_written_into_the_bundle_and_replaced(
    tmp_path: Path, cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    before = open_bundle(bundle)
    assert before.ask_below is None
    found = calibrate(bundle, cases, turns(8), monkeypatch)
    assert (found.turns, found.acted, found.wrong) == (40, 35, 3) and found.cases == "mine.yaml"
    after = open_bundle(bundle)
    assert after.confidence == found and after.ask_below == found.ask_below == pytest.approx(6 / 41)
    assert after.manifest.id != before.manifest.id and after.model_identity == before.model_identity
    assert calibrate(bundle, cases, turns(0), monkeypatch).ask_below == pytest.approx(1 / 41)
    assert open_bundle(bundle).ask_below == pytest.approx(1 / 41)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_a_model_that_is_wrong_where_it_is_surest_gets_no_threshold(
    tmp_path: Path, cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    with pytest.raises(GateError, match=r"more than 10\.0% is wrong even where the model is surest"):
        calibrate(bundle, cases, turns(40), monkeypatch)
    with pytest.raises(UsageError, match="does something in 5 turns"):
        calibrate(bundle, cases, turns(0, 5), monkeypatch)
    assert open_bundle(bundle).confidence is None


def test_on_a_box_nothing_changes_and_a_flash_brings_it_there(
    tmp_path: Path, cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, box = make_tiny_bundle(tmp_path / "bundle"), tmp_path / "box"
    flash(bundle, box)
    with pytest.raises(UsageError, match="is on a box"):
        calibrate(box, cases, turns(8), monkeypatch)
    found = calibrate(bundle, cases, turns(8), monkeypatch)
    flash(bundle, box)
    assert open_bundle(box).confidence == found


def test_a_confidence_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    put_file(bundle, CONFIDENCE, b'{"schema": "confidence/v1", "ask_below": 7}')
    with pytest.raises(BundleTampered, match=r"confidence\.json: cannot be read"):
        open_bundle(bundle)
    (bundle / CONFIDENCE).write_text("{}")
    rewrite_manifest(bundle)
    with pytest.raises(BundleTampered, match=r"confidence\.json"):
        open_bundle(bundle)


def test_the_agent_of_the_bundle_asks_below_it(tiny: Tiny, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny.bundle, tmp_path / "bundle")
    found = {"turns": 40, "acted": 30, "wrong": 3, "cases": "mine.yaml", "cases_sha256": "0" * 64}
    put_file(
        bundle,
        CONFIDENCE,
        json.dumps({"schema": "confidence/v1", "ask_below": 0.5, "max_wrong": 0.1} | found).encode(),
    )
    with open_session(bundle, "") as session:
        assert session.simulation.ask_below == 0.5
