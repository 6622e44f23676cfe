"""Pretraining, a few steps of it: what it writes, and that the trees are the same again."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from edge_agent.markers import MARKERS
from finetune.pretrain import load_pretrain_recipe, pretrain, random_rows, random_trees
from finetune.rows import IGNORED
from finetune.starter_model import train_tokenizer

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


def test_a_few_steps_leave_a_model_that_loads_with_its_tokenizer_card_and_figures(tmp_path: Path) -> None:
    lines: list[str] = []
    figures = pretrain(RECIPE, tmp_path / "base", report=lines.append)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert model.dtype == torch.bfloat16 and model.config.vocab_size == len(tokenizer) == figures["vocabulary"]
    assert all(len(tokenizer.encode(marker, add_special_tokens=False)) == 1 for marker in MARKERS)
    assert model(torch.tensor([tokenizer.encode("turn on the light")])).logits.isfinite().all()
    assert json.loads((tmp_path / "base" / "training.json").read_text(encoding="utf-8")) == figures
    card = (tmp_path / "base" / "README.md").read_text(encoding="utf-8")
    assert f"{figures['tokens']:,} seen in 3 steps" in card and "Limits" in card
    assert "edgewright_tree" not in (tmp_path / "base" / "config.json").read_text(encoding="utf-8")
    assert lines[-1].startswith("step 3/3")


def test_trees_are_the_same_for_the_same_seed_and_every_one_trains_something() -> None:
    tokenizer = train_tokenizer(str(next(random_rows("words")).messages) for _ in range(3))
    first, again = (list(islice(random_trees(RECIPE, tokenizer), 3)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.token_ids, other.token_ids) and torch.equal(one.labels, other.labels)
        assert (one.labels != IGNORED).any() and one.branches >= 1
    other_seed = next(random_trees(RECIPE.model_copy(update={"seed": 2}), tokenizer))
    assert not torch.equal(first[0].token_ids[:20], other_seed.token_ids[:20]) or first[0].tokens != other_seed.tokens
