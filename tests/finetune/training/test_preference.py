"""Preference pairs from what a model gets wrong, and DPO on them."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from devices.errors import RefusedError, UsageError
from devices.site.site import load_site
from edge_agent.evaluation.models.placement import Placement
from edge_agent.progress import ProgressBar
from edge_agent.wire.messages import body_of
from finetune.data import generator as conversations
from finetune.data.generator import draw_plan, generate_practice
from finetune.data.held_out import is_held_out
from finetune.data.preference_pairs import Pair, find_pairs, read_pairs
from finetune.data.rows import Row, write_lines, write_rows
from finetune.recipe import Recipe, load_recipe
from finetune.training.train import dry_run, train_run
from tests.tiny_base import make_tiny_base, make_tiny_run

HOME = load_site("home")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preference")
    base = make_tiny_base(folder / "base")
    make_tiny_run(folder / "run", base)
    pairs = [
        Pair(messages[:2], messages[2], "<think> No.</think>No.") for _, messages in generate_practice(HOME, 12, 3)
    ]
    write_lines(folder / "pairs.jsonl", (pair.to_json() for pair in pairs))
    return folder


def recipe_in(folder: Path, out: Path, data: str = "pairs.jsonl", **changes: Any) -> Recipe:
    plain = {
        "schema": "recipe/v1",
        "base": str(folder / "base"),
        "site": "home",
        "data": str(folder / data),
        "out": str(out),
        "preference": {"start_from": str(folder / "run"), "beta": 0.5},
        "training": {"steps": 8, "batch_rows": 2, "learning_rate": 1e-3, "warmup_steps": 0, "share_prefix": False},
    }
    return Recipe.model_validate(plain | changes)


def test_pairs_are_what_a_model_says_wrongly_in_practice(folder: Path) -> None:
    pairs = list(find_pairs(str(folder / "run"), HOME, 4, 5, Placement()))
    assert len(pairs) == 4  # random weights do nothing right
    expected = [messages for _, messages in generate_practice(HOME, 4, 5)]
    for pair, messages in zip(pairs, expected, strict=True):
        assert (*pair.prompt, pair.chosen) == messages[:3] and pair.rejected != body_of(pair.chosen)
    write_lines(folder / "found.jsonl", (pair.to_json() for pair in pairs))
    assert [pair for _, pair in read_pairs(folder / "found.jsonl")] == pairs


def test_practice_has_no_held_out_phrasing(monkeypatch: pytest.MonkeyPatch) -> None:
    templates: list[str] = []

    def draw(*arguments: Any, **options: Any) -> Any:
        plan = draw_plan(*arguments, **options)
        templates.extend(plan.templates)
        return plan

    monkeypatch.setattr(conversations, "draw_plan", draw)
    assert len(list(generate_practice(HOME, 200, 1))) == 200
    assert len(templates) > 200 and not any(map(is_held_out, templates))


def test_training_prefers_what_is_right_and_keeps_the_run_s_form(folder: Path, tmp_path: Path) -> None:
    facts = train_run(recipe_in(folder, tmp_path / "out"), progress=ProgressBar(io.StringIO()))
    losses = [loss for _, loss in facts.losses]
    assert losses[0] == pytest.approx(math.log(2), abs=0.02)  # where it starts it is its own reference
    assert losses[-1] < 0.5
    before = load_file(folder / "run" / "adapter" / "adapter_model.safetensors")
    after = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert before.keys() == after.keys() and all(weight.dtype == torch.float32 for weight in after.values())
    assert any(not weight.equal(before[name]) for name, weight in after.items())
    sample = (tmp_path / "out" / "sample.jsonl").read_text(encoding="utf-8")
    assert sample == (folder / "run" / "sample.jsonl").read_text(encoding="utf-8")
    assert facts.data.rows == 12


def test_a_run_of_another_contract_and_a_wrong_pair_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="run"):
        train_run(recipe_in(folder, tmp_path / "out", site="greenhouse"), progress=ProgressBar(io.StringIO()))
    lines = (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    plain = json.loads(lines[1])
    write_lines(
        folder / "same.jsonl", [lines[0], json.dumps(plain | {"rejected": ""} | {"chosen": plain["prompt"][0]})]
    )
    with pytest.raises(UsageError, match=r"same\.jsonl:2: not a pair"):
        train_run(recipe_in(folder, tmp_path / "out", data="same.jsonl"), progress=ProgressBar(io.StringIO()))


def test_the_recipe_says_what_goes_together() -> None:
    assert load_recipe("home_prefer").preference
    with pytest.raises(UsageError, match="preference goes without"):
        load_recipe("home_prefer", ["training.share_prefix=true"])


def test_a_plan_counts_both_replies_of_a_pair(folder: Path, tmp_path: Path) -> None:
    recipe = recipe_in(folder, tmp_path / "run")
    progress = ProgressBar(io.StringIO())
    pairs = dry_run(recipe, progress).plan
    rows = [Row((), (*pair.prompt, pair.chosen)) for _, pair in read_pairs(folder / "pairs.jsonl")]
    write_rows(tmp_path / "rows.jsonl", rows)
    alone = dry_run(recipe.model_copy(update={"preference": None, "data": str(tmp_path / "rows.jsonl")}), progress).plan
    assert pairs.steps == alone.steps and 1.8 < pairs.tokens / alone.tokens < 2.2
    assert 1.8 < pairs.memory.activations / alone.memory.activations < 2.2
