"""Drills, and the heads that begin by looking back."""

from __future__ import annotations

from random import Random

import torch
from transformers import LlamaForCausalLM

from finetune.data.drills import make_drills
from finetune.data.rows import IGNORED
from finetune.pretraining.starter_model import look_back, starter_config


def test_what_a_drill_trains_stood_after_the_same_name_before() -> None:
    token_ids, labels = make_drills(Random(1), vocabulary=500, rows=20, length=96)
    assert token_ids.shape == labels.shape == (20, 96) and (labels != IGNORED).float().mean() > 0.3
    for ids, wanted in zip(token_ids.tolist(), labels.tolist(), strict=True):
        for place in range(2, 95):
            if wanted[place] == IGNORED:
                continue
            assert wanted[place] == ids[place + 1]
            start = next(back for back in range(place, -1, -1) if wanted[back - 1] == IGNORED)
            said = ids[start - 1 : place + 2]  # from the name's first token to the trained one
            assert any(ids[at : at + len(said)] == said for at in range(start - len(said)))


def test_drills_are_the_same_for_the_same_seed() -> None:
    first, again = (make_drills(Random(1), 500, 4, 64) for _ in range(2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


def test_in_half_of_the_drills_the_same_key_has_other_values_in_other_records() -> None:
    token_ids, labels = make_drills(Random(1), vocabulary=500, rows=40, length=96)
    ambiguous = 0
    for ids, wanted in zip(token_ids.tolist(), labels.tolist(), strict=True):
        after: dict[tuple[int, ...], set[int]] = {}
        for place in range(2, 95):
            if wanted[place] != IGNORED:
                after.setdefault(tuple(ids[place - 2 : place + 1]), set()).add(wanted[place])
        ambiguous += any(len(tokens) > 1 for tokens in after.values())
    assert 10 <= ambiguous <= 30


def test_the_heads_begin_by_looking_at_the_tokens_before() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(starter_config(300, layers=1))
    look_back(model, Random(1))
    model.config._attn_implementation = "eager"
    seen = model(torch.randint(300, (4, 200)), output_attentions=True).attentions[0]
    for head, distance in enumerate((1, 2, 3, 4)):
        assert seen[:, head].argmax(-1)[:, 20:].eq(torch.arange(200)[20:] - distance).float().mean() > 0.9
