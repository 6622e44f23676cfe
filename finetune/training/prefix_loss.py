"""The loss on trained tokens only, with the prefix that all rows of a batch share evaluated once.

Every conversation on a site starts with the same system text, often more than half of a row. It is followed by what the
rows have of their own, row after row without padding, as branches of a tree (prefix_tree.py). Loss and gradients are
those of the plain computation (tested), apart from dropout, which the rows then share within the prefix.

Does not guard against: models that scale or cap their logits outside the head (`has_plain_head`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from finetune.data.rows import IGNORED
from finetune.training.prefix_tree import HEAD_STEP, branch_states

MIN_SHARED_TOKENS = 32  # below this the second pass through the layers costs more than it saves
HEAD_LOGITS = 2**25  # held at a time: 128 MiB in float32, which is 682 tokens of a vocabulary of 49,152


def has_plain_head(config: Any) -> bool:
    """Return whether logits are the head's output as it is, as in Llama, Mistral, Phi-3, Qwen2/3 and Gemma 3."""
    changes = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
    return all(getattr(config, name, None) is None for name in changes)


def summed_loss(model: Any, batch: dict[str, Any], *, share_prefix: bool) -> Any:
    """Return the summed cross-entropy of a batch's trained tokens, float32 scalar.

    Args:
        model: a causal model with a backbone (`base_model`) and an output head.
        batch: `input_ids` and `labels`, int64 (row, position); `attention_mask` (row, position) with padding on the
            right, or `position_ids` of packed rows.
        share_prefix: evaluate what all rows start with once.
    """
    hidden, labels, _ = _before_labels(model, batch, share_prefix=share_prefix)
    is_trained = labels != IGNORED
    return chunked_loss(model.get_output_embeddings(), hidden[is_trained], labels[is_trained])


def chunked_loss(head: Any, hidden: Any, labels: Any) -> Any:
    """Return the summed cross-entropy of labels, float32 scalar; no more than HEAD_LOGITS logits are held at a time.

    With more than one chunk, the backward pass computes each one's logits anew.

    Args:
        head: the output layer.
        hidden: (token, width).
        labels: int64 (token,).
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    def loss_of(hidden: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(head(hidden).float(), labels, ignore_index=IGNORED, reduction="sum")

    size, fill = chunk_tokens(head), -len(labels) % HEAD_STEP
    hidden = torch.nn.functional.pad(hidden, (0, 0, 0, fill))
    labels = torch.nn.functional.pad(labels, (0, fill), value=IGNORED)
    if len(labels) <= size:
        return loss_of(hidden, labels)
    parts = zip(hidden.split(size), labels.split(size), strict=True)
    options = {"use_reentrant": False, "preserve_rng_state": False}  # nothing here is random
    return torch.stack([checkpoint(loss_of, *part, **options) for part in parts]).sum()


def chunk_tokens(head: Any) -> int:
    """Return of how many tokens an output layer's logits are held at a time."""
    return max(HEAD_STEP, HEAD_LOGITS // head.weight.shape[0] // HEAD_STEP * HEAD_STEP)


def exact_rows(model: Any, batch: dict[str, Any], *, share_prefix: bool) -> Any:
    """Return of each row whether every trained token is the model's first choice, bool (row,).

    Greedy decoding would then say the same. Arguments are those of `summed_loss`.
    """
    import torch

    hidden, labels, row_of = _before_labels(model, batch, share_prefix=share_prefix)
    head, is_trained = model.get_output_embeddings(), labels != IGNORED
    chosen = torch.cat([head(part).argmax(-1) for part in hidden[is_trained].split(chunk_tokens(head))])
    is_exact = torch.ones(len(batch["input_ids"]), dtype=torch.bool, device=labels.device)
    is_exact[row_of[is_trained][chosen != labels[is_trained]]] = False
    return is_exact


def _before_labels(model: Any, batch: dict[str, Any], *, share_prefix: bool) -> tuple[Any, Any, Any]:
    """Return hidden states (token, width), the token each should predict, int64 (token,), and its row, int64 (token,).

    Tokens of a prefix that is evaluated once are left out: none of them predicts what is trained.
    """
    import torch

    rows, longest = batch["input_ids"].shape
    start = shared_prefix(batch) if share_prefix and not outgrows_window(model.config, longest) else 0
    labels = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
    row_of = torch.arange(rows, device=labels.device)[:, None].expand(rows, longest)
    hidden = hidden_states(model, batch, start)
    if not start:
        return hidden.flatten(0, 1), labels.flatten(), row_of.flatten()
    is_own = batch["attention_mask"][:, start:].bool()
    return hidden, labels[:, start:][is_own], row_of[:, start:][is_own]


def outgrows_window(config: Any, tokens: int) -> bool:
    """Return whether the last of so many tokens does not see all before it, which attention in a tree does not know of.

    Layers may see all, as one of six of Gemma 3 does; one that does not is enough.
    """
    window = getattr(config, "sliding_window", None)
    return window is not None and tokens > window


def shared_prefix(batch: dict[str, Any]) -> int:
    """Return how many leading positions all rows share and none trains; 0 if too few to be worth it.

    The last shared position stays with the rows: its output predicts what may be trained.
    """
    ids, labels = batch["input_ids"], batch["labels"]
    if len(ids) < 2 or "attention_mask" not in batch:
        return 0
    is_alike = (ids == ids[:1]).all(0) & (labels == IGNORED).all(0) & batch["attention_mask"].bool().all(0)
    shared = int(is_alike.long().cumprod(0).sum()) - 1
    return shared if shared >= MIN_SHARED_TOKENS else 0


def parts_of(batch: dict[str, Any], most_tokens: int, *, share_prefix: bool) -> list[dict[str, Any]]:
    """Return a batch's rows in parts of which no more than `most_tokens` pass through the layers at once.

    Losses of the parts add up to that of the batch, and so do their gradients. A row is never cut: one that is longer
    is a part of its own. A batch that fits is returned as it is.

    Args:
        batch: as in `summed_loss`.
        most_tokens: those of a prefix that is shared count once.
        share_prefix: as in `summed_loss`.
    """
    if "attention_mask" not in batch:
        return _packed_parts(batch, most_tokens)
    lengths = batch["attention_mask"].sum(1).tolist()
    shared = shared_prefix(batch) if share_prefix else 0
    places = cut_rows(lengths, shared, most_tokens)
    if len(places) == 1:
        return [batch]
    return [
        {key: rows[part, : max(lengths[place] for place in part)] for key, rows in batch.items()} for part in places
    ]


def cut_rows(lengths: Sequence[int], shared: int, most_tokens: int) -> list[list[int]]:
    """Return the places of rows, shortest first, in parts of which at most `most_tokens` pass through the layers."""
    parts: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        longer = [lengths[row] for row in (parts[-1] if parts else [])] + [lengths[place]]
        if parts and passed_tokens(shared, longer) <= most_tokens:
            parts[-1].append(place)
        else:
            parts.append([place])
    return parts


def passed_tokens(shared: int, lengths: Sequence[int]) -> int:
    """Return how many tokens pass through the layers for rows that share so many; padded rows if they share none."""
    return shared + sum(length - shared for length in lengths) if shared else len(lengths) * max(lengths)


def _packed_parts(batch: dict[str, Any], most_tokens: int) -> list[dict[str, Any]]:
    """Return a batch whose rows follow each other in one, cut where rows begin."""
    positions = batch["position_ids"][0]
    starts = [*(positions == 0).nonzero()[:, 0].tolist(), len(positions)]
    cuts = [0]
    for end, following in pairwise(starts[1:] + starts[-1:]):
        if following - cuts[-1] > most_tokens or end == starts[-1]:
            cuts.append(end)
    if len(cuts) == 2:
        return [batch]
    rows = {key: batch[key] for key in ("input_ids", "labels", "position_ids")}
    return [{key: values[:, start:end] for key, values in rows.items()} for start, end in pairwise(cuts)]


def hidden_states(model: Any, batch: dict[str, Any], start: int) -> Any:
    """Return the last hidden states: (row, position, width), padding included.

    If the first `start` positions are shared: those of the tokens behind them without padding, (token, width).
    """
    ids = batch["input_ids"]
    if not start:
        given = {key: batch[key] for key in ("attention_mask", "position_ids") if key in batch}
        return model.base_model(input_ids=ids, use_cache=False, **given).last_hidden_state
    ends = batch["attention_mask"].sum(1).tolist()
    return branch_states(model, ids[0, :start], [row[start:end] for row, end in zip(ids, ends, strict=True)])
