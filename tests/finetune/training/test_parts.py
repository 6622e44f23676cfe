"""Batches in parts, logits in chunks: the same losses and gradients, and less held at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig

from finetune.data.rows import IGNORED
from finetune.training import prefix_loss
from finetune.training.cpu_attention import CPU_ATTENTION
from finetune.training.prefix_loss import chunked_loss, cut_rows, parts_of, shared_prefix, summed_loss
from finetune.training.prefix_tree import branch_states
from finetune.training.step_memory import LiveBytes
from tests.tiny_base import make_tiny_base

LENGTHS = (90, 70, 80, 64, 88)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


def batch_of(lengths: tuple[int, ...], shared: int) -> dict[str, Any]:
    """Rows that start alike, padded on the right, the second half of what follows trained."""
    longest = max(lengths)
    ids = torch.randint(1, 500, (len(lengths), longest), generator=torch.Generator().manual_seed(0))
    ids[:, :shared] = ids[0, :shared]
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, : (shared + min(lengths)) // 2] = IGNORED
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def loss_and_gradients(model: Any, parts: list[dict[str, Any]], *, share: bool) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    total = 0.0
    for part in parts:
        loss = summed_loss(model, part, share_prefix=share)
        loss.backward()
        total += loss.item()
    return total, [weight.grad.clone() for weight in model.parameters()]


def assert_same(one: tuple[float, list[torch.Tensor]], other: tuple[float, list[torch.Tensor]]) -> None:
    assert other[0] == pytest.approx(one[0], rel=1e-5)
    for ours, theirs in zip(one[1], other[1], strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(ours.abs().max()))


def tiny_gemma(window: int) -> Any:
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=500, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=1, head_dim=32, query_pre_attn_scalar=32, sliding_window=window,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("window", [40, 96])
def test_gemma_3_shares_a_prefix_only_where_no_row_outgrows_its_window(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = tiny_gemma(window), batch_of(LENGTHS, 60)
    assert_same(*(loss_and_gradients(model, [batch], share=share) for share in (False, True)))
    trees = Mock(wraps=branch_states)
    monkeypatch.setattr(prefix_loss, "branch_states", trees)
    labels = batch["labels"]
    reference = model(**batch).loss.item() * int((labels[:, 1:] != IGNORED).sum())
    assert loss_and_gradients(model, [batch], share=True)[0] == pytest.approx(reference, rel=1e-4)
    assert trees.called == (window > max(LENGTHS))


def test_parts_hold_as_many_tokens_as_they_may_and_every_row_once() -> None:
    lengths = [50, 90, 60, 90, 55, 300]
    parts = cut_rows(lengths, 40, 120)
    assert sorted(place for part in parts for place in part) == list(range(6))
    for part in parts[:-1]:
        assert 40 + len(part) * (max(lengths[place] for place in part) - 40) <= 120
    assert parts == [[0, 4, 2], [1], [3], [5]]  # 40 + 3 * 20; two of 90 would be 140; 300 is over and alone
    assert cut_rows(lengths, 40, 10_000) == [[0, 4, 2, 1, 3, 5]]


@pytest.mark.parametrize("share", [True, False])
def test_parts_add_up_to_the_batch(base: Path, share: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation=CPU_ATTENTION)
    batch = batch_of(LENGTHS, 50)
    parts = parts_of(batch, 150, share_prefix=share)
    assert len(parts) == (2 if share else 4)
    for part in parts:
        start = shared_prefix(part) if share else 0
        passed = part["attention_mask"][:, start:].sum() if share else part["input_ids"].numel()
        assert start + int(passed) <= 150
    assert sum(int((part["labels"] != IGNORED).sum()) for part in parts) == int((batch["labels"] != IGNORED).sum())
    whole = loss_and_gradients(model, [batch], share=share)
    assert_same(whole, loss_and_gradients(model, parts, share=share))
    assert parts_of(batch, 10_000, share_prefix=share)[0] is batch


def test_packed_rows_are_cut_where_rows_begin(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation=CPU_ATTENTION)
    rows = batch_of(LENGTHS, 0)
    kept = rows["attention_mask"].bool()
    rows["labels"][:, 0] = IGNORED  # as trl's collator has it: a row's first token follows nothing
    packed = {
        "input_ids": rows["input_ids"][kept][None],
        "labels": rows["labels"][kept][None],
        "position_ids": torch.cat([torch.arange(length) for length in LENGTHS])[None],
    }
    parts = parts_of(packed, 160, share_prefix=False)
    assert [part["input_ids"].shape[1] for part in parts] == [160, 144, 88]
    assert all(part["position_ids"][0, 0] == 0 for part in parts)
    whole = loss_and_gradients(model, [packed], share=False)
    assert_same(whole, loss_and_gradients(model, parts, share=False))
    assert_same(whole, loss_and_gradients(model, [rows], share=False))


def test_the_attention_of_a_cpu_is_that_of_transformers(base: Path) -> None:
    batch = batch_of(LENGTHS, 50)
    found = []
    for attention in ("sdpa", CPU_ATTENTION):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation=attention)
        assert model.config.num_key_value_heads < model.config.num_attention_heads
        found.append(loss_and_gradients(model, [batch], share=True))
    assert_same(*found)


def test_chunks_have_the_loss_and_gradients_of_all_at_once_and_hold_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head, labels = torch.nn.Linear(16, 1000, bias=False), torch.randint(0, 1000, (400,))
    found = []
    for logits in (400 * 1000, 64 * 1000):
        monkeypatch.setattr(prefix_loss, "HEAD_LOGITS", logits)
        hidden = torch.randn(400, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
        head.zero_grad()
        with LiveBytes() as live:
            loss = chunked_loss(head, hidden, labels)
            loss.backward()
        assert hidden.grad is not None and head.weight.grad is not None
        found.append((loss.detach(), hidden.grad, head.weight.grad.clone(), live.peak))
    for whole, chunked in zip(found[0][:3], found[1][:3], strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-5)
    all_logits = 400 * 1000 * 4
    assert found[0][3] > 2 * all_logits and found[1][3] < all_logits
