"""Trees: the same losses and gradients as the conversations one by one."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from finetune.data.rows import IGNORED
from finetune.pretraining.starter_model import starter_config
from finetune.training.prefix_tree import (
    ATTENTION,
    EMPTY,
    TRUNK_STEP,
    build_tree,
    masked_attention,
    tree_attention,
    tree_losses,
)

VOCABULARY = 90
Encoded = tuple[list[int], list[int]]


def rows_on_a_trunk(shared: int, lengths: list[int], seed: int = 1) -> list[Encoded]:
    rng = Random(seed)
    head = [rng.randrange(VOCABULARY) for _ in range(shared)]
    rows = []
    for number, length in enumerate(lengths):
        tail = [number, *(rng.randrange(VOCABULARY) for _ in range(length - 1))]
        labels = [token if rng.random() < 0.5 else IGNORED for token in tail[:-1]]
        rows.append((head + tail, [IGNORED] * shared + labels + [tail[-1]]))
    return rows


def losses_one_by_one(model: LlamaForCausalLM, rows: list[Encoded], trunk: int) -> tuple[torch.Tensor, torch.Tensor]:
    logits, labels = [], []
    for ids, row_labels in rows:
        logits.append(model(torch.tensor([ids]), use_cache=False).logits[0, :-1])
        labels.append(torch.tensor(row_labels[1:]))
    trained = cross_entropy(torch.cat(logits), torch.cat(labels), ignore_index=IGNORED)
    return trained, cross_entropy(logits[0][: trunk - 1], torch.tensor(rows[0][0][1:trunk]))


@pytest.mark.parametrize("lengths", [[9, 9, 9], [20, 3, 11, 5, 8, 2], [24]])
def test_losses_and_gradients_are_those_of_the_rows_one_by_one(lengths: list[int]) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(starter_config(VOCABULARY, layers=2))
    rows = rows_on_a_trunk(2 * TRUNK_STEP + 3, lengths)
    tree = build_tree(rows, slots=3, width=32)
    assert tree and tree.branches == len(rows) and tree.trunk % TRUNK_STEP == 0
    assert tree.tokens == tree.trunk + sum(len(ids) - tree.trunk for ids, _ in rows)

    def gradients(trained: torch.Tensor, trunk: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(trained + 0.1 * trunk, list(model.parameters())))

    model.config._attn_implementation = "eager"
    expected = losses_one_by_one(model, rows, tree.trunk)
    expected_gradients = gradients(*expected)
    model.config._attn_implementation = ATTENTION
    got = tree_losses(model.model, model.lm_head, tree)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients(*got), expected_gradients, rtol=1e-3, atol=1e-5)


def test_attention_in_parts_is_attention_with_a_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    branch_of = torch.tensor([[0] * 9 + [1] * 20 + [EMPTY] * 3, [2] * 32])
    query, key, value = (torch.randn(1, heads, 16 + branch_of.numel(), 32, generator=generator) for heads in (4, 2, 2))
    in_parts, _ = tree_attention(None, query, key, value, None, scaling=0.2, branch_of=branch_of)
    masked = masked_attention(query, key, value, branch_of.flatten(), 0.2).transpose(1, 2)
    torch.testing.assert_close(in_parts, masked, rtol=1e-5, atol=1e-5)


def test_a_tree_takes_rows_until_one_has_no_room_and_leaves_out_what_fits_no_slot() -> None:
    rows = rows_on_a_trunk(TRUNK_STEP, [20, 40, 12, 20, 20])
    tree = build_tree(rows, slots=2, width=32)
    assert tree and tree.branches == 3  # 20 and 12 in one slot, 20 in the other; 40 fits none; the last has no room
    assert (tree.branch_of == EMPTY).sum() == 12
    assert build_tree(rows, slots=2, width=8) is None
