"""The loss on trained tokens only, with the prefix that all rows of a batch share evaluated once.

Every conversation on a site starts with the same system text, often more than half of a row. Its keys and values are
computed for one row and repeated for the others; gradients flow back through the repeat, so loss and gradients are
those of the plain computation (tested), apart from dropout, which the rows then share within the prefix.

Does not guard against: models that scale or cap their logits outside the head (`has_plain_head`).
"""

from __future__ import annotations

from typing import Any

from finetune.rows import IGNORED

MIN_SHARED_TOKENS = 32  # below this the second pass through the layers costs more than it saves
HEAD_TOKENS = 2048  # tokens whose logits are held at a time: 1 GB in float32 for a vocabulary of 128,000


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
    import torch
    from torch.utils.checkpoint import checkpoint

    hidden, labels = _before_labels(model, batch, share_prefix=share_prefix)
    is_trained = labels != IGNORED
    hidden, labels = hidden[is_trained], labels[is_trained]
    head = model.get_output_embeddings()

    def head_loss(hidden: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(head(hidden).float(), labels, reduction="sum")

    if len(labels) <= HEAD_TOKENS:
        return head_loss(hidden, labels)
    parts = zip(hidden.split(HEAD_TOKENS), labels.split(HEAD_TOKENS), strict=True)
    return torch.stack([checkpoint(head_loss, *part, use_reentrant=False) for part in parts]).sum()


def exact_rows(model: Any, batch: dict[str, Any], *, share_prefix: bool) -> Any:
    """Return of each row whether every trained token is the model's first choice, bool (row,).

    Greedy decoding would then say the same. Arguments are those of `summed_loss`.
    """
    import torch

    hidden, labels = _before_labels(model, batch, share_prefix=share_prefix)
    head, is_right = model.get_output_embeddings(), labels == IGNORED
    is_trained = ~is_right
    chosen = torch.cat([head(part).argmax(-1) for part in hidden[is_trained].split(HEAD_TOKENS)])
    is_right[is_trained] = chosen == labels[is_trained]
    return is_right.all(1)


def _before_labels(model: Any, batch: dict[str, Any], *, share_prefix: bool) -> tuple[Any, Any]:
    """Return the hidden states that predict, (row, position, width), and what they should, int64 (row, position)."""
    start = shared_prefix(batch) if share_prefix else 0
    return _hidden_states(model, batch, start)[:, :-1], batch["labels"][:, start:][:, 1:]


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


def _hidden_states(model: Any, batch: dict[str, Any], start: int) -> Any:
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
