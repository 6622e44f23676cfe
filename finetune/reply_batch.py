"""Replies of a batch advancing together over one key-value cache, one token a row and step.

Prompts are padded on the left, after the shared prefix; positions count real tokens only. Rows that are done leave
the batch when enough of them are.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from edge_agent.engine import Request, StopReason
from edge_agent.matching import Matcher

DROP_SHARE = 8  # done rows leave when they are one in so many: dropping copies the cache once
PADDING = 0  # any token: what stands there is masked
States = list[tuple[Tensor, Tensor]]  # keys and values by layer, each (row, head, position, width)


class RoomyLayer(DynamicLayer):
    """One layer's keys and values in a buffer with room for all that will come, so that no step copies them."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity, self._length = capacity, 0
        self._buffers: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append states (row, head, position, width); return all so far, as views into the buffer."""
        both = (key_states, value_states)
        if not self._buffers:
            self.lazy_initialization(key_states, value_states)
            self._buffers = [states.new_empty((*states.shape[:2], self._capacity, states.shape[-1])) for states in both]
        end = self._length + key_states.shape[-2]
        assert end <= self._capacity
        for buffer, states in zip(self._buffers, both, strict=True):
            buffer[:, :, self._length : end] = states
        self._length = end
        return self._show()

    def keep_rows(self, places: Tensor) -> None:
        """Keep these rows of the batch only; int64 (kept,)."""
        self._buffers = [buffer[places] for buffer in self._buffers]
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[:, :, : self._length] for buffer in self._buffers)
        return self.keys, self.values


def new_cache(prefix: States, layers: int, rows: int, capacity: int) -> Cache:
    """Return a cache with room for `capacity` positions, the prefix (states of one row) already in every row."""
    cache = Cache(layers=[RoomyLayer(capacity) for _ in range(layers)])
    for layer, states in zip(cache.layers, prefix, strict=False):
        keys, values = (part.expand(rows, -1, -1, -1) for part in states)
        layer.update(keys, values)
    return cache


@dataclass
class ReplyRow:
    """One reply in the making; `queue` has the tokens that the model has not seen yet."""

    index: int
    request: Request
    matcher: Matcher
    prompt_tokens: int
    reused_tokens: int
    queue: deque[int]
    reply: list[int] = field(default_factory=list)
    model_steps: int = 0
    forced_tokens: int = 0
    overruled_tokens: int = 0
    stop_reason: StopReason | None = None

    def take_forced(self) -> None:
        """Accept what the grammar forces next, and stop where the grammar or the limit says so."""
        taken = self.matcher.take_forced()
        self.forced_tokens += len(taken)
        self.reply += taken
        self.queue += taken
        if self.matcher.is_over:
            self.stop_reason = "end_of_turn"
        elif len(self.reply) >= self.request.limits.reply_tokens:
            self.stop_reason = "length"

    def decide(self, token: int, wanted: int) -> None:
        """Accept the likeliest allowed token and what the grammar forces after it; `wanted` is the likeliest of all."""
        self.model_steps += 1
        self.overruled_tokens += token != wanted
        if not self.matcher.accept(token):
            self.stop_reason = "end_of_turn"
            return
        self.reply.append(token)
        self.queue.append(token)
        self.take_forced()

    def check_forced(self, wanted: int) -> None:
        """Hold the likeliest token against the one that the grammar forces here, if it does."""
        if self.queue and self.stop_reason is None:
            self.overruled_tokens += self.matcher.vocabulary.spells_other(wanted, self.queue[0])

    def stop_if_late(self, elapsed_s: float) -> None:
        """Stop if the request's timeout has passed."""
        timeout_s = self.request.limits.timeout_s
        if self.stop_reason is None and timeout_s is not None and elapsed_s >= timeout_s:
            self.stop_reason = "timeout"


class ReplyBatch:
    """Rows over one cache. Call `step` while `has_work`."""

    def __init__(self, model: Any, rows: list[ReplyRow], prefix: States, layers: int) -> None:
        """Args: prefix: the states of the tokens that all rows share, before the rows' queues."""
        self._model, self._rows = model, rows
        self._length = prefix[0][0].shape[-2] if prefix else 0
        longest = max(len(row.queue) for row in rows)
        capacity = self._length + longest + max(row.request.limits.reply_tokens for row in rows)
        self._cache = new_cache(prefix, layers, len(rows), capacity)
        self._is_real = torch.zeros((len(rows), capacity), dtype=torch.bool, device=model.device)
        self._is_real[:, : self._length] = True
        self._next_position = torch.full((len(rows), 1), self._length, device=model.device)
        self._is_prefilled = False

    def has_work(self, started: float) -> bool:
        """Stop late rows, drop done ones where it pays, and return whether any is left."""
        for row in self._rows:
            row.stop_if_late(time.monotonic() - started)
        live = [place for place, row in enumerate(self._rows) if row.stop_reason is None]
        done = len(self._rows) - len(live)
        if live and done * DROP_SHARE >= len(self._rows) and done:
            self._keep_rows(live)
        return bool(live)

    def step(self) -> None:
        """Feed every row its next token (the whole prompt at first), and let those decide that have no more."""
        fed = [self._next_tokens(row) for row in self._rows]
        logits = self._forward(fed)
        wanted = logits.argmax(dim=-1).tolist()
        for row, token in zip(self._rows, wanted, strict=True):
            row.check_forced(token)
        deciding = [place for place, row in enumerate(self._rows) if row.stop_reason is None and not row.queue]
        if not deciding:
            return
        masks = np.stack([self._rows[place].matcher.mask for place in deciding])
        for place, token in zip(deciding, _best(logits[deciding], masks), strict=True):
            self._rows[place].decide(token, wanted[place])

    def _next_tokens(self, row: ReplyRow) -> list[int]:
        if row.stop_reason is not None:
            return []
        if self._is_prefilled:
            return [row.queue.popleft()]
        return [row.queue.popleft() for _ in range(len(row.queue) - row.forced_tokens)]

    def _forward(self, fed: list[list[int]]) -> Tensor:
        """Return the logits after each row's last token, (row, vocabulary)."""
        width = max(len(tokens) for tokens in fed)
        padded = torch.tensor([[PADDING] * (width - len(tokens)) + tokens for tokens in fed], device=self._model.device)
        is_real = torch.tensor([[False] * (width - len(tokens)) + [True] * len(tokens) for tokens in fed])
        is_real = is_real.to(self._model.device)
        positions = self._next_position + is_real.cumsum(dim=1) - 1
        end = self._length + width
        self._is_real[:, self._length : end] = is_real
        output = self._model(
            input_ids=padded,
            attention_mask=self._is_real[:, :end].long(),
            position_ids=positions.clamp(min=0),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._next_position += is_real.sum(dim=1, keepdim=True)
        self._length, self._is_prefilled = end, True
        logits: Tensor = output.logits[:, -1]
        return logits

    def _keep_rows(self, places: list[int]) -> None:
        kept = torch.tensor(places, device=self._model.device)
        self._rows = [self._rows[place] for place in places]
        self._is_real, self._next_position = self._is_real[kept], self._next_position[kept]
        if self._length:
            for layer in self._cache.layers:
                layer.keep_rows(kept)


def _best(logits: Tensor, masks: np.ndarray[Any, np.dtype[np.int32]]) -> list[int]:
    """Return each row's likeliest allowed token.

    Args:
        logits: (row, vocabulary).
        masks: int32 (row, words); bit b of word w allows token 32 * w + b.
    """
    words = torch.from_numpy(masks).to(logits.device)
    bits = (words[:, :, None] >> torch.arange(32, device=logits.device, dtype=torch.int32)) & 1
    is_allowed = bits.flatten(1)[:, : logits.shape[-1]].bool()
    tokens: list[int] = logits.masked_fill(~is_allowed, -torch.inf).argmax(dim=-1).tolist()
    return tokens
