"""Readings in words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from devices.site.describe import age_text, answers_about, describe, number_text
from devices.site.site import load_site


@pytest.mark.parametrize(
    ("age_s", "text"),
    [
        (90, "90 seconds ago"),
        (120, "2 minutes ago"),
        (3 * 3600 + 60, "3 hours ago"),
        (47 * 3600, "47 hours ago"),
        (4.6 * 86400, "5 days ago"),
        (math.inf, "nobody knows since when"),
    ],
)
def test_ages(age_s: float, text: str) -> None:
    assert age_text(age_s) == text


@pytest.mark.parametrize(
    ("value", "text"), [(21, "21"), (21.04, "21"), (0.25, "0.2"), (123456.7, "123456.7"), (1000000, "1000000")]
)
def test_large_numbers_keep_their_digits(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("model", "state", "answers"),
    [
        ("blinds", {"position": 0}, ["The slats are closed."]),
        ("blinds", {"position": 100}, ["The slats are open."]),
        ("blinds", {"position": 40}, ["The slats position is 40 percent."]),
        ("fan", {"speed": 0}, ["The slats are off."]),
        ("dimmable_light", {"on": False, "brightness": 40}, ["The slats are off."]),
        ("dimmable_light", {"on": True, "brightness": 40}, ["The slats are on and its brightness is 40 percent."]),
        (["humidifier", "humidity"], {"on": False, "target_humidity": 50, "humidity": 33},
         ["The slats are off and its humidity is 33 percent."]),
        ("blinds", {}, []),
    ],
)  # fmt: skip
def test_what_is_asked_of_a_state(tmp_path: Path, model: object, state: dict[str, Any], answers: list[str]) -> None:
    site = {"schema": "site/v1", "name": "s", "title": "s", "devices": {"slats": {"model": model}}}
    (tmp_path / "site.yaml").write_text(json.dumps(site), encoding="utf-8")
    assert answers_about(load_site(tmp_path / "site.yaml").devices["slats"], state) == answers


@pytest.mark.parametrize(
    ("title", "verb"),
    [("blinds", "are"), ("string lights", "are"), ("main gas", "is"), ("canvas", "is"), ("lens", "is"), ("glass", "is"),
     ("status", "is"), ("lamp", "is")],
)  # fmt: skip
def test_plural_names_are(title: str, verb: str) -> None:
    light = load_site("home").devices["porch_light"].model_copy(update={"title": title})
    assert describe(light, "on", True) == f"the {title} {verb} on"


def test_of_three_properties_each_has_a_sentence_and_all_have_one() -> None:
    arm = load_site("bench_arm").devices["arm"]
    state = {"x": 1, "y": 2, "gripping": True}
    each = ["The robot arm is gripping.", "The robot arm x is 1 millimetres.", "The robot arm y is 2 millimetres."]
    whole = "The robot arm is gripping, the robot arm x is 1 millimetres and the robot arm y is 2 millimetres."
    assert answers_about(arm, state) == [*each, whole]
