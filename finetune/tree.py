"""Trees: conversations that start alike, evaluated together, with what they share evaluated once.

A trunk (system text and state) is followed by slots of one length, each filled with branches (request, thought, calls,
results, answer). A branch sees the trunk and itself. Keys and values of the trunk are never repeated: two thirds of the
attention is one large matrix product, which is what processors with bfloat16 matrix units are fast at.

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

from finetune.rows import IGNORED

# A CPU's matrix kernels are generated for every new shape, so lengths are multiples of these.
TRUNK_STEP, HEAD_STEP = 16, 64
ATTENTION = "edgewright_tree"  # what a model's config._attn_implementation must be
EMPTY = -1
# exp of it is 9e-14, nothing beside 1; far below, results are denormal, which took a CPU five times as long.
LOWEST = -30.0


@dataclass(frozen=True)
class Tree:
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

    def to(self, device: str) -> Tree:
        """Return the tree on a device."""
        moved = (self.token_ids, self.positions, self.labels, self.trunk_labels, self.branch_of)
        token_ids, positions, labels, trunk_labels, branch_of = (tensor.to(device) for tensor in moved)
        return Tree(token_ids, positions, labels, trunk_labels, branch_of, self.branches, self.tokens)


def plant(rows: Sequence[tuple[list[int], list[int]]], slots: int, width: int) -> Tree | None:
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
    return Tree(
        token_ids=torch.cat([head, token_ids.flatten()]),
        positions=torch.cat([torch.arange(trunk), positions.flatten()]),
        labels=torch.cat([torch.full((trunk,), IGNORED), labels.flatten()]),
        trunk_labels=torch.cat([head[1:], torch.tensor([IGNORED])]),
        branch_of=branch_of,
        branches=count,
        tokens=trunk + sum(filled),
    )


def tree_losses(body: Any, head: Any, tree: Tree) -> tuple[Tensor, Tensor]:
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
    heads, groups, dimension = query.shape[1], key.shape[1], query.shape[3]
    shared = heads // groups
    slots, length = branch_of.shape
    trunk = query.shape[2] - slots * length
    at_trunk = scaled_dot_product_attention(
        query[:, :, :trunk], key[:, :, :trunk], value[:, :, :trunk], is_causal=True, enable_gqa=True
    )
    in_slots = (groups, shared, slots, length)
    asked = query[0, :, trunk:].reshape(*in_slots, dimension) * scaling
    keys = key[0, :, trunk:].reshape(groups * slots, length, dimension)
    values = value[0, :, trunk:].reshape(groups * slots, length, dimension)
    asked_own = asked.transpose(1, 2).reshape(groups * slots, shared * length, dimension)
    to_trunk = torch.bmm(asked.reshape(groups, -1, dimension), key[0, :, :trunk].transpose(1, 2)).float()
    to_own = torch.bmm(asked_own, keys.transpose(1, 2)).float().view(groups, slots, shared, length, length)
    is_hidden = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    is_hidden = is_hidden | (branch_of[:, :, None] != branch_of[:, None, :])
    to_own = to_own.masked_fill(is_hidden[:, None], -torch.inf).transpose(1, 2)
    to_trunk = to_trunk.view(*in_slots, trunk)
    highest = torch.maximum(to_trunk.amax(-1, keepdim=True), to_own.amax(-1, keepdim=True)).detach()
    on_trunk, on_own = (torch.exp((scores - highest).clamp_min(LOWEST)) for scores in (to_trunk, to_own))
    total = on_trunk.sum(-1, keepdim=True) + on_own.sum(-1, keepdim=True)
    from_trunk = torch.bmm(on_trunk.to(value.dtype).view(groups, -1, trunk), value[0, :, :trunk])
    on_own = on_own.to(value.dtype).transpose(1, 2).reshape(groups * slots, shared * length, length)
    from_own = torch.bmm(on_own, values).view(groups, slots, shared, length, dimension).transpose(1, 2)
    at_slots = ((from_trunk.view(*in_slots, dimension) + from_own) / total).to(value.dtype)
    whole = torch.cat([at_trunk, at_slots.reshape(1, heads, slots * length, dimension)], dim=2)
    return whole.transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, tree_attention)
