"""A run on own cases that was killed goes on, and nothing stale is ever taken for a result."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.site.site import load_site
from edge_agent.agent.simulation import Simulation
from edge_agent.evaluation.own import result_cache as caching
from edge_agent.evaluation.own.own_cases import OwnCase, run_own_cases
from edge_agent.evaluation.own.result_cache import ResultCache, program_digest, result_cache
from edge_agent.wire.chat_template import load_template
from tests.edge_agent.evaluation.own.test_own_cases import ScriptedEngine

HOME = load_site("home")
CASES = [OwnCase.model_validate({"ask": f"hello number {number}", "kind": "chat", "expect": {}}) for number in range(3)]
SAID = "<think> t</think>Hello."


def run(cases: list[OwnCase], cache: ResultCache, replies: int) -> list[str]:
    """Run cases with an engine that has so many replies and no more."""
    engine = ScriptedEngine(*[SAID] * replies)
    simulation = Simulation(HOME, load_template("chatml"))
    return [one.ask for one in run_own_cases(cases, simulation, engine, cache=cache)]  # type: ignore[arg-type]


def test_what_was_done_before_a_kill_is_not_done_again(tmp_path: Path) -> None:
    run(CASES[:2], ResultCache(tmp_path, "a"), 2)
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:-9])  # the second line is cut
    assert run(CASES, ResultCache(tmp_path, "a"), 2) == [case.turns[0].ask for case in CASES]
    assert run(CASES, ResultCache(tmp_path, "a"), 0) == [case.turns[0].ask for case in CASES]
    graded = ResultCache(tmp_path, "a").get(CASES[0])
    assert graded is not None and graded[0].problems == () and graded[0].answer == "Hello."
    assert ResultCache(tmp_path, "b").get(CASES[0]) is None


def test_a_result_is_of_one_file_site_setting_and_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "model.gguf"
    model.write_bytes(b"one")
    run(CASES, result_cache(model, None, HOME, 1), 3)
    assert result_cache(model, None, HOME, 1).get(CASES[0]) is not None
    assert result_cache(model, None, HOME, 2).get(CASES[0]) is None
    assert result_cache(model, None, load_site("greenhouse"), 1).get(CASES[0]) is None
    assert result_cache(model, model, HOME, 1).get(CASES[0]) is None
    with monkeypatch.context() as changed:
        changed.setattr(caching, "program_digest", lambda: "another version")
        assert result_cache(model, None, HOME, 1).get(CASES[0]) is None
    model.write_bytes(b"two")
    assert result_cache(model, None, HOME, 1).get(CASES[0]) is None
    assert len(program_digest()) == 64


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = ResultCache(tmp_path / "file", "a")
    assert len(run(CASES, cache, 3)) == 3
