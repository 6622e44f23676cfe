"""Trees: conversations that start alike, evaluated together, with what they share evaluated once.

A trunk (system text and state) is followed by slots of one length, each filled with branches (request, thought, calls,
results, answer). A branch sees the trunk and itself.

Does not guard against: models whose attention has a window, a soft cap or dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from finetune.data.rows import IGNORED

# A CPU's matrix kernels are generated for every new shape, so lengths are multiples of these.
TRUNK_STEP, HEAD_STEP = 16, 64
ATTENTION = "edgewright_tree"  # what a model's config._attn_implementation must be
EMPTY = -1


@dataclass(frozen=True)
class PrefixTree:
    """A trunk and its slots, flat: the trunk's tokens, then slot after slot.

    Attributes:
        token_ids: int64 (token,).
        positions: int64 (token,); every branch goes on where the trunk ends.
        labels: int64 (token,); the next token of the same branch, IGNORED where it is not trained.
        trunk_labels: int64 (trunk,); the next token in the trunk, whatever is trained.
        branch_of: int64 (slot, position); which branch a token of a slot belongs to, EMPTY at the end of a slot.
        branches: how many there are.
        tokens: how many are not empty.
    """

    token_ids: Tensor
    positions: Tensor
    labels: Tensor
    trunk_labels: Tensor
    branch_of: Tensor
    branches: int
    tokens: int

    @property
    def trunk(self) -> int:
        """Tokens of the trunk."""
        return len(self.trunk_labels)

    def to(self, device: str) -> PrefixTree:
        """Return the tree on a device."""
        moved = (self.token_ids, self.positions, self.labels, self.trunk_labels, self.branch_of)
        token_ids, positions, labels, trunk_labels, branch_of = (tensor.to(device) for tensor in moved)
        return PrefixTree(token_ids, positions, labels, trunk_labels, branch_of, self.branches, self.tokens)


def build_tree(rows: Sequence[tuple[list[int], list[int]]], slots: int, width: int) -> PrefixTree | None:
    """Return the tree of rows that start alike, untrained: as many of them, in their order, as there is room for.

    Args:
        rows: token ids and labels of each; IGNORED labels hide a token from the loss. A row whose branch is longer than
            a slot is left out.
        slots: how many slots.
        width: tokens of a slot.

    Returns:
        None if no row fits.
    """
    first, shortest = rows[0][0], min(len(ids) for ids, _ in rows)
    own = (
        index
        for index in range(shortest - 1)
        if any(ids[index] != first[index] or labels[index + 1] != IGNORED for ids, labels in rows)
    )
    trunk = max(1, next(own, shortest - 1) // TRUNK_STEP * TRUNK_STEP)
    token_ids = torch.zeros(slots, width, dtype=torch.long)
    positions = torch.zeros(slots, width, dtype=torch.long)
    labels = torch.full((slots, width), IGNORED)
    branch_of = torch.full((slots, width), EMPTY)
    filled = [0] * slots
    count = 0
    for ids, row_labels in rows:
        length = len(ids) - trunk
        if length > width:
            continue
        slot = next((slot for slot in range(slots) if filled[slot] + length <= width), None)
        if slot is None:
            break
        start, end = filled[slot], filled[slot] + length
        token_ids[slot, start:end] = torch.tensor(ids[trunk:])
        positions[slot, start:end] = torch.arange(trunk, trunk + length)
        labels[slot, start : end - 1] = torch.tensor(row_labels[trunk + 1 :])
        branch_of[slot, start:end] = count
        filled[slot] = end
        count += 1
    if not count:
        return None
    head = torch.tensor(first[:trunk])
    return PrefixTree(
        token_ids=torch.cat([head, token_ids.flatten()]),
        positions=torch.cat([torch.arange(trunk), positions.flatten()]),
        labels=torch.cat([torch.full((trunk,), IGNORED), labels.flatten()]),
        trunk_labels=torch.cat([head[1:], torch.tensor([IGNORED])]),
        branch_of=branch_of,
        branches=count,
        tokens=trunk + sum(filled),
    )


def tree_losses(body: Any, head: Any, tree: PrefixTree) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of the trained tokens, and that of the trunk's.

    Args:
        body: the model without its head, with ATTENTION as its attention.
        head: the output layer.
        tree: on the model's device.
    """
    hidden = body(
        input_ids=tree.token_ids[None],
        position_ids=tree.positions[None],
        use_cache=False,
        branch_of=tree.branch_of,
    ).last_hidden_state[0]
    places = (tree.labels != IGNORED).nonzero()[:, 0]
    labels = torch.nn.functional.pad(tree.labels[places], (0, -len(places) % HEAD_STEP), value=IGNORED)
    places = torch.nn.functional.pad(places, (0, -len(places) % HEAD_STEP))
    trained = cross_entropy(head(hidden[places]).float(), labels, ignore_index=IGNORED)
    trunk = cross_entropy(head(hidden[: tree.trunk]).float(), tree.trunk_labels, ignore_index=IGNORED)
    return trained, trunk


@torch.compiler.disable  # compiled, it was slower and took a minute to compile
def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float,
    branch_of: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return what each token attends to, in the form of transformers' AttentionInterface.

    Args:
        module: not used.
        attention_mask: not used; `branch_of` says what is hidden.
        scaling: of the scores.
        query: (1, head, token, dimension).
        key: (1, key-value head, token, dimension).
        value: as key.
        branch_of: (slot, position), as in Tree.

    Returns:
        (1, token, head, dimension).
    """
    attend = _attention_in_parts if query.device.type == "cpu" else masked_attention
    return attend(query, key, value, branch_of, scaling).transpose(1, 2), None


def masked_attention(query: Tensor, key: Tensor, value: Tensor, branch_of: Tensor, scaling: float) -> Tensor:
    """Return attention (1, head, token, dimension) with a mask over all tokens, for devices that it costs little."""
    places = torch.arange(query.shape[2], device=query.device)
    trunk = len(places) - branch_of.numel()
    branches = torch.nn.functional.pad(branch_of.flatten(), (trunk, 0), value=EMPTY - 1)
    is_seen = (places < trunk) | (branches[:, None] == branches)
    is_seen &= places[:, None] >= places
    return scaled_dot_product_attention(query, key, value, attn_mask=is_seen, scale=scaling, enable_gqa=True)


def _attention_in_parts(query: Tensor, key: Tensor, value: Tensor, branch_of: Tensor, scaling: float) -> Tensor:
    heads, groups, dimension = query.shape[1], key.shape[1], query.shape[3]
    slots, length = branch_of.shape
    trunk = query.shape[2] - slots * length

    def by_slot(states: Tensor) -> Tensor:
        return states[0, :, trunk:].reshape(heads, slots, length, dimension).transpose(0, 1)

    keys, values = (states.repeat_interleave(heads // groups, dim=1) for states in (key, value))
    is_hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    is_hidden = is_hidden | (branch_of[:, :, None] != branch_of[:, None, :])
    hidden = torch.zeros(is_hidden.shape).masked_fill(is_hidden, -torch.inf)[:, None]
    at_trunk = scaled_dot_product_attention(
        query[:, :, :trunk], keys[:, :, :trunk], values[:, :, :trunk], is_causal=True, scale=scaling
    )
    # All queries of the heads that share a key are rows of one matrix.
    asked = query[:, :, trunk:].reshape(1, groups, -1, dimension)
    own = map(by_slot, (query, keys, values))
    at_slots = _JoinedAttention.apply(asked, key[:, :, :trunk], value[:, :, :trunk], *own, hidden, scaling)
    return torch.cat([at_trunk, at_slots.transpose(0, 1).reshape(1, heads, slots * length, dimension)], dim=2)


class _JoinedAttention(torch.autograd.Function):
    """Attention of the slots' tokens to trunk and slot: two passes of torch's own kernel, joined by their totals.

    The backward kernel needs only the output and the logarithm of the total (log-sum-exp) of the whole softmax, so each
    part gets those of both together. Source: H. Liu et al., "Ring Attention with Blockwise Transformers", 2023.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """Return (slot, head, position, dimension).

        Args:
            ctx: of autograd.
            inputs: asked (1, key-value head, head of it x slot x position, dimension), the trunk's keys and values;
                the slots' queries, keys and values (slot, head, position, dimension), what is hidden from them
                (slot, 1, position, position), added to scores; scaling.
        """
        asked, trunk_keys, trunk_values, queries, keys, values, hidden, scaling = inputs
        slots, heads, length, dimension = queries.shape
        from_trunk, trunk_total = _flash(asked, trunk_keys, trunk_values, scale=scaling)
        from_own, own_total = _flash(queries, keys, values, attn_mask=hidden.to(queries.dtype), scale=scaling)
        trunk_total = trunk_total.reshape(heads, slots, length).transpose(0, 1)
        from_trunk = from_trunk.reshape(heads, slots, length, dimension).transpose(0, 1)
        total = torch.logaddexp(trunk_total, own_total)
        trunk_share, own_share = ((part - total).exp()[..., None] for part in (trunk_total, own_total))
        joined = (from_trunk * trunk_share + from_own * own_share).to(queries.dtype)
        ctx.save_for_backward(asked, trunk_keys, trunk_values, queries, keys, values, hidden, joined, total)
        ctx.scaling = scaling
        return joined

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the inputs; computed in float32, in which the CPU's kernel is twice as fast."""
        saved = [tensor.float() for tensor in (*ctx.saved_tensors, *gradients)]
        asked, trunk_keys, trunk_values, queries, keys, values, hidden, joined, total, gradient = saved

        def as_asked(states: Tensor) -> Tensor:
            return states.transpose(0, 1).reshape(1, asked.shape[1], -1, *states.shape[3:])

        whole = as_asked(joined), as_asked(total)
        to_trunk = _flash_backward(as_asked(gradient), asked, trunk_keys, trunk_values, *whole, scale=ctx.scaling)
        to_own = _flash_backward(gradient, queries, keys, values, joined, total, attn_mask=hidden, scale=ctx.scaling)
        dtype = ctx.saved_tensors[0].dtype
        return *(part.to(dtype) for part in (*to_trunk, *to_own)), None, None


def _flash(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    output, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, **options)
    return output, total


def _flash_backward(gradient: Tensor, *saved: Tensor, **options: Any) -> tuple[Tensor, ...]:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return tuple(kernel(gradient.contiguous(), *(part.contiguous() for part in saved), 0.0, False, **options))


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, tree_attention)
