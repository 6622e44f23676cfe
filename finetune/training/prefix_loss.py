"""The loss on trained tokens only, with the prefix that all rows of a batch share evaluated once.

Every conversation on a site starts with the same system text, often more than half of a row. Its keys and values are
computed for one row and repeated for the others; gradients flow back through the repeat, so loss and gradients are
those of the plain computation (tested), apart from dropout, which the rows then share within the prefix.

Does not guard against: models that scale or cap their logits outside the head (`has_plain_head`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from finetune.data.rows import IGNORED

MIN_SHARED_TOKENS = 32  # below this the second pass through the layers costs more than it saves
HEAD_LOGITS = 2**25  # held at a time: 128 MiB in float32, which is 682 tokens of a vocabulary of 49,152


def has_plain_head(config: Any) -> bool:
    """Return whether logits are the head's output as it is, as in Llama, Mistral, Phi-3 and Qwen2/3."""
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
    hidden, labels = _before_labels(model, batch, share_prefix=share_prefix)
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
        return torch.nn.functional.cross_entropy(head(hidden).float(), labels, reduction="sum")

    size = chunk_tokens(head)
    if len(labels) <= size:
        return loss_of(hidden, labels)
    parts = zip(hidden.split(size), labels.split(size), strict=True)
    options = {"use_reentrant": False, "preserve_rng_state": False}  # nothing here is random
    return torch.stack([checkpoint(loss_of, *part, **options) for part in parts]).sum()


def chunk_tokens(head: Any) -> int:
    """Return of how many tokens an output layer's logits are held at a time."""
    return max(1, HEAD_LOGITS // head.weight.shape[0])


def exact_rows(model: Any, batch: dict[str, Any], *, share_prefix: bool) -> Any:
    """Return of each row whether every trained token is the model's first choice, bool (row,).

    Greedy decoding would then say the same. Arguments are those of `summed_loss`.
    """
    import torch

    hidden, labels = _before_labels(model, batch, share_prefix=share_prefix)
    head, is_right = model.get_output_embeddings(), labels == IGNORED
    is_trained = ~is_right
    chosen = torch.cat([head(part).argmax(-1) for part in hidden[is_trained].split(chunk_tokens(head))])
    is_right[is_trained] = chosen == labels[is_trained]
    return is_right.all(1)


def _before_labels(model: Any, batch: dict[str, Any], *, share_prefix: bool) -> tuple[Any, Any]:
    """Return the hidden states that predict, (row, position, width), and what they should, int64 (row, position)."""
    start = shared_prefix(batch) if share_prefix else 0
    return hidden_states(model, batch, start)[:, :-1], batch["labels"][:, start:][:, 1:]


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
    """Return the places of rows in parts, shortest rows first; each part is padded to its longest row."""
    parts: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        rows = len(parts[-1]) + 1 if parts else 0
        if parts and shared + rows * (lengths[place] - shared) <= most_tokens:
            parts[-1].append(place)
        else:
            parts.append([place])
    return parts


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
    """Return the last hidden states from position `start` on, (row, position - start, width)."""
    from transformers.cache_utils import DynamicCache

    ids = batch["input_ids"]
    if not start:
        given = {key: batch[key] for key in ("attention_mask", "position_ids") if key in batch}
        return model.base_model(input_ids=ids, use_cache=False, **given).last_hidden_state
    cache = DynamicCache(config=model.config)
    model.base_model(input_ids=ids[:1, :start], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(ids))
    rest = model.base_model(
        input_ids=ids[:, start:], attention_mask=batch["attention_mask"], past_key_values=cache, use_cache=True
    )
    return rest.last_hidden_state
