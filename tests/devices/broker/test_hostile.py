"""A hostile model against the broker, and that the judge of benchmarks/hostile_model.py would notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.hostile_model import hostile_run
from devices.broker import policy
from devices.broker.readings import Readings
from devices.site import action


def test_ten_thousand_proposals_get_nothing_past_the_policy(tmp_path: Path) -> None:
    figures = hostile_run(10_000, 7, tmp_path)
    assert figures["violations"] == 0, figures["first"]
    assert set(figures["statuses"]) == {"done", "refused", "needs_confirmation", "failed", "unknown", "dry_run"}


@pytest.mark.slow
def test_a_million_proposals_get_nothing_past_the_policy(tmp_path: Path) -> None:
    figures = hostile_run(1_000_000, 1, tmp_path)
    assert figures["violations"] == 0, figures["first"]


def any_numbers(schemas: dict[str, Any], given: dict[str, Any]) -> str:
    is_well = set(schemas) == set(given) and all(type(value) in (int, float) for value in given.values())
    return "" if is_well and all(abs(value) < 1e6 for value in given.values()) else "no"


@pytest.mark.parametrize(
    ("where", "name", "sabotage", "said"),
    [
        (action, "input_problem", any_numbers, "than the m"),  # "… is greater than the maximum of …"
        (policy, "CONFIRMATION_S", 1e9, "nobody said yes"),
        (Readings, "interlock_problem", lambda *_: "", ".level_pct is "),
        (policy.Policy, "_wait_s", lambda *_: 0.0, "it must rest"),
        (policy.Policy, "_has_yes", lambda *_: True, "nobody said yes"),
    ],
)
def test_a_hole_in_the_broker_is_found(
    where: Any, name: str, sabotage: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, sabotage)
    figures = hostile_run(4_000, 7, tmp_path)
    assert figures["violations"] and any(said in problem for problem in figures["first"]), figures
