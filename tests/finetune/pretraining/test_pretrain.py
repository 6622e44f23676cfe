"""Pretraining, a few steps of it: what it writes, and that the trees are the same again."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from devices.errors import UsageError
from edge_agent.progress import ProgressBar
from edge_agent.wire.markers import MARKERS
from finetune.data.rows import IGNORED
from finetune.pretraining.pretrain import _make_start, load_pretrain_recipe, pretrain, random_rows, random_trees
from finetune.pretraining.starter_model import train_tokenizer

RECIPE = load_pretrain_recipe("starter").model_copy(
    update={
        "layers": 1,
        "steps": 3,
        "step_trees": 1,
        "drill_steps": 2,
        "tokenizer_rows": 5,
        "is_compiled": False,
        "long_share": 0.5,
    }
)


def test_a_wrong_name_is_told_the_right_ones() -> None:
    with pytest.raises(UsageError, match="no recipe is called 'startr'") as error:
        load_pretrain_recipe("startr")
    assert "starter" in error.value.hint


def test_a_few_steps_leave_a_model_that_loads_with_its_tokenizer_card_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.progress.QUICK_S", 0.0)  # its last line is shown however quick the machine is
    shown = io.StringIO()
    figures = pretrain(RECIPE, tmp_path / "base", progress=ProgressBar(shown))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert model.dtype == torch.bfloat16 and model.config.vocab_size == len(tokenizer) == figures["vocabulary"]
    assert all(len(tokenizer.encode(marker, add_special_tokens=False)) == 1 for marker in MARKERS)
    torch.manual_seed(RECIPE.seed)
    _, start = _make_start(RECIPE)
    before = dict(start.to(torch.bfloat16).named_parameters())
    assert before.keys() == dict(model.named_parameters()).keys()
    matrices = [(name, weight) for name, weight in model.named_parameters() if weight.ndim == 2]
    assert matrices and not [name for name, weight in matrices if torch.equal(weight, before[name])]  # all learnt
    guess = math.log(figures["vocabulary"])
    assert figures["assistant_loss"] == pytest.approx(guess, rel=0.1)  # three steps do not bring it far from there
    assert json.loads((tmp_path / "base" / "training.json").read_text(encoding="utf-8")) == figures
    card = (tmp_path / "base" / "README.md").read_text(encoding="utf-8")
    assert f"{figures['tokens']:,} seen in 3 steps" in card and "Limits" in card
    assert "edgewright_tree" not in (tmp_path / "base" / "config.json").read_text(encoding="utf-8")
    assert shown.getvalue().splitlines()[-1].startswith("step 3/3")


def test_trees_are_those_of_seed_and_worker_and_workers_share_them() -> None:
    tokenizer = train_tokenizer(str(next(random_rows("words")).messages) for _ in range(3))

    def trees(worker: int = 0, **changes: int) -> list[list[int]]:
        made = list(random_trees(RECIPE.model_copy(update=changes), tokenizer, worker))
        for tree in made:  # what is trained is the next token of the same branch
            trained = (tree.labels[tree.trunk :] != IGNORED).nonzero()[:, 0]
            assert len(trained) and torch.equal(
                tree.labels[tree.trunk :][trained], tree.token_ids[tree.trunk + 1 :][trained]
            )
        return [tree.token_ids.tolist() for tree in made]

    first = trees()
    assert len(first) == RECIPE.steps * RECIPE.step_trees and first == trees()
    others = trees(seed=2)
    assert all(one != other for one, other in zip(first, others, strict=True))
    shares = [trees(worker, workers=2) for worker in (0, 1)]
    assert [len(share) for share in shares] == [2, 2]  # of three, rounded up
    assert shares[0] == first[:2] and not any(tree in shares[0] for tree in shares[1])
