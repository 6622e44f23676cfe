"""Trees: conversations that start alike, evaluated together, with what they share evaluated once.

A trunk (system text and state) is followed by branches (request, thought, calls, results, answer), each of which sees
the trunk and itself. `PrefixTree` fills slots of one length with them, for passes that are compiled for one shape;
`branch_states` has them one after another as they are.

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
TRUNK_STEP, HEAD_STEP, BATCH_STEP = 16, 64, 64
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


def branch_states(model: Any, trunk: Tensor, branches: Sequence[Tensor]) -> Tensor:
    """Return the last hidden states of the branches' tokens, branch after branch, (token, width).

    Args:
        model: a causal model; it takes this module's attention for the pass, whatever it was loaded with.
        trunk: token ids that all branches start with, int64 (token,).
        branches: token ids of each behind the trunk, int64 (token,).
    """
    device, start = trunk.device, len(trunk)
    end = start + sum(len(branch) for branch in branches)
    branches = [*branches, trunk.new_zeros(-end % BATCH_STEP)]  # one that nobody looks at
    places = [torch.arange(start), *(torch.arange(start, start + len(branch)) for branch in branches)]
    usual = model.config._attn_implementation
    model.config._attn_implementation = ATTENTION
    try:
        hidden = model.base_model(
            input_ids=torch.cat([trunk, *branches])[None],
            position_ids=torch.cat(places)[None].to(device),
            use_cache=False,
            branch_lengths=tuple(len(branch) for branch in branches if len(branch)),
        ).last_hidden_state
    finally:
        model.config._attn_implementation = usual
    return hidden[0, start:end]


@torch.compiler.disable  # compiled, it was slower and took a minute to compile
def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float,
    branch_of: Tensor | None = None,
    branch_lengths: tuple[int, ...] = (),
    **_: Any,
) -> tuple[Tensor, None]:
    """Return what each token attends to, in the form of transformers' AttentionInterface.

    Args:
        module: not used.
        attention_mask: not used; `branch_of` or `branch_lengths`, one of them, says what is hidden.
        scaling: of the scores.
        query: (1, head, token, dimension).
        key: (1, key-value head, token, dimension).
        value: as key.
        branch_of: (slot, position), as in PrefixTree.
        branch_lengths: of the branches that follow the trunk, in tokens.

    Returns:
        (1, token, head, dimension).
    """
    if query.device.type == "cpu":
        slots = _Branches(branch_lengths) if branch_of is None else _Slots(branch_of)
        return _attention_in_parts(query, key, value, slots, scaling).transpose(1, 2), None
    if branch_of is None:
        lengths = torch.tensor(branch_lengths, device=query.device)
        branch_of = torch.arange(len(lengths), device=query.device).repeat_interleave(lengths)
    return masked_attention(query, key, value, branch_of.flatten(), scaling).transpose(1, 2), None


def masked_attention(query: Tensor, key: Tensor, value: Tensor, branch_of: Tensor, scaling: float) -> Tensor:
    """Return attention (1, head, token, dimension) with a mask over all tokens, for devices that it costs little.

    `branch_of` is int64 (token,), of those behind the trunk.
    """
    places = torch.arange(query.shape[2], device=query.device)
    trunk = len(places) - len(branch_of)
    branches = torch.nn.functional.pad(branch_of, (trunk, 0), value=EMPTY - 1)
    is_seen = (places < trunk) | (branches[:, None] == branches)
    is_seen &= places[:, None] >= places
    return scaled_dot_product_attention(query, key, value, attn_mask=is_seen, scale=scaling, enable_gqa=True)


def _attention_in_parts(query: Tensor, key: Tensor, value: Tensor, own: _Slots | _Branches, scaling: float) -> Tensor:
    trunk = query.shape[2] - own.tokens
    keys, values = (states.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for states in (key, value))
    at_trunk = scaled_dot_product_attention(
        query[:, :, :trunk], keys[:, :, :trunk], values[:, :, :trunk], is_causal=True, scale=scaling
    )
    behind = (states[:, :, trunk:] for states in (query, keys, values))
    joined = _JoinedAttention.apply(*behind, key[:, :, :trunk], value[:, :, :trunk], own, scaling)
    return torch.cat([at_trunk, joined], dim=2)


class _JoinedAttention(torch.autograd.Function):
    """Attention of the tokens behind a trunk to it and to their own branch.

    Passes of torch's own kernel over each are joined by their totals. The backward kernel needs only the output and the
    logarithm of the total (log-sum-exp) of the whole softmax, so each part gets those of both together. Source: H. Liu
    et al., "Ring Attention with Blockwise Transformers", 2023.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """Return (1, head, token, dimension).

        Args:
            ctx: of autograd.
            inputs: queries, keys and values behind the trunk (1, head, token, dimension); the trunk's keys and values
                (1, key-value head, token, dimension); what attends to branches; scaling.
        """
        query, key, value, trunk_key, trunk_value, own, scaling = inputs
        from_trunk, trunk_total = _flash(_grouped(query, trunk_key), trunk_key, trunk_value, scale=scaling)
        from_trunk, trunk_total = from_trunk.reshape(query.shape), trunk_total.reshape(query.shape[:3])
        from_own, own_total = own.attend(query, key, value, scaling)
        total = torch.logaddexp(trunk_total, own_total)
        trunk_share, own_share = ((part - total).exp()[..., None] for part in (trunk_total, own_total))
        joined = (from_trunk * trunk_share + from_own * own_share).to(query.dtype)
        ctx.save_for_backward(query, key, value, trunk_key, trunk_value, joined, total)
        ctx.own, ctx.scaling = own, scaling
        return joined

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the inputs; computed in float32, in which the CPU's kernel is twice as fast."""
        saved = [tensor.float() for tensor in (*ctx.saved_tensors, *gradients)]
        query, key, value, trunk_key, trunk_value, joined, total, gradient = saved
        asked = [_grouped(states, trunk_key) for states in (gradient, query)]
        whole = [_grouped(states, trunk_key) for states in (joined, total)]
        to_trunk = _flash_backward(*asked, trunk_key, trunk_value, *whole, scale=ctx.scaling)
        to_query, *to_own = ctx.own.gradients((gradient, query, key, value, joined, total), ctx.scaling)
        dtype = ctx.saved_tensors[0].dtype
        found = (to_query + to_trunk[0].reshape(query.shape), *to_own, *to_trunk[1:])
        return *(part.to(dtype) for part in found), None, None


class _Branches:
    """Attention within branches that follow each other without gaps, branch after branch."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths, self.tokens = list(lengths), sum(lengths)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
        """Return output (1, head, token, dimension) and totals (1, head, token)."""
        branches = zip(*(states.split(self._lengths, dim=2) for states in (query, key, value)), strict=True)
        found = [_flash(*branch, is_causal=True, scale=scaling) for branch in branches]
        output, total = (torch.cat(parts, dim=2) for parts in zip(*found, strict=True))
        return output, total

    def gradients(self, states: Sequence[Tensor], scaling: float) -> tuple[Tensor, ...]:
        """Return those of query, key and value; `states` as _flash_backward takes them."""
        branches = zip(*(one.split(self._lengths, dim=2) for one in states), strict=True)
        found = [_flash_backward(*branch, is_causal=True, scale=scaling) for branch in branches]
        return tuple(torch.cat(parts, dim=2) for parts in zip(*found, strict=True))


class _Slots:
    """Attention within slots of one length, all at once, with a mask that keeps their branches apart."""

    def __init__(self, branch_of: Tensor) -> None:
        self._count, self._length = branch_of.shape
        self.tokens = branch_of.numel()
        is_hidden = torch.ones(self._length, self._length, dtype=torch.bool).triu(1)
        is_hidden = is_hidden | (branch_of[:, :, None] != branch_of[:, None, :])
        self._hidden = torch.zeros(is_hidden.shape).masked_fill(is_hidden, -torch.inf)[:, None]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
        """Return as _Branches."""
        states, hidden = map(self._fill, (query, key, value)), self._hidden.to(query.dtype)
        output, total = _flash(*states, attn_mask=hidden, scale=scaling)
        return self._empty(output), self._empty(total)

    def gradients(self, states: Sequence[Tensor], scaling: float) -> tuple[Tensor, ...]:
        """Return as _Branches."""
        found = _flash_backward(*map(self._fill, states), attn_mask=self._hidden, scale=scaling)
        return tuple(map(self._empty, found))

    def _fill(self, states: Tensor) -> Tensor:
        """Return states (1, head, token, ...) as (slot, head, position, ...)."""
        return states[0].unflatten(1, (self._count, self._length)).transpose(0, 1)

    def _empty(self, states: Tensor) -> Tensor:
        """Undo `_fill`."""
        return states.transpose(0, 1).flatten(1, 2)[None]


def _grouped(states: Tensor, key: Tensor) -> Tensor:
    """Return states (1, head, token, ...) so that all queries of the heads that share a key are rows of one matrix."""
    return states.reshape(1, key.shape[1], -1, *states.shape[3:])


def _flash(
    query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool = False, **options: Any
) -> tuple[Tensor, Tensor]:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    output, total = kernel(query, key, value, 0.0, is_causal, **options)
    return output, total


def _flash_backward(gradient: Tensor, *saved: Tensor, is_causal: bool = False, **options: Any) -> tuple[Tensor, ...]:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return tuple(kernel(gradient.contiguous(), *(part.contiguous() for part in saved), 0.0, is_causal, **options))


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, tree_attention)
