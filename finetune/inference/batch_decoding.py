"""Replies of a batch advancing together over one key-value cache, one token a row and step.

Prompts are padded on the left, after the shared prefix; positions count real tokens only. Rows that are done leave
the batch when enough of them are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from edge_agent.engine.decoding_loop import DecodingLoop

DROP_SHARE = 8  # done rows leave when they are one in so many: dropping copies the cache once
PADDING = 0  # any token: what stands there is masked
States = list[tuple[Tensor, Tensor]]  # keys and values by layer, each (row, head, position, width)


class PreallocatedLayer(DynamicLayer):
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
    cache = Cache(layers=[PreallocatedLayer(capacity) for _ in range(layers)])
    for layer, states in zip(cache.layers, prefix, strict=False):
        keys, values = (part.expand(rows, -1, -1, -1) for part in states)
        layer.update(keys, values)
    return cache


class ReplyBatch:
    """Rows over one cache. Call `step` while `has_work`."""

    def __init__(self, model: Any, loops: Sequence[DecodingLoop], prefix: States, layers: int) -> None:
        """Args: prefix: the states of the tokens that all rows share, before what they have pending."""
        self._model, self._loops = model, list(loops)
        self._length = prefix[0][0].shape[-2] if prefix else 0
        longest = max(len(loop.pending) for loop in loops)
        capacity = self._length + longest + max(loop.request.limits.reply_tokens for loop in loops)
        self._cache = new_cache(prefix, layers, len(loops), capacity)
        self._is_real = torch.zeros((len(loops), capacity), dtype=torch.bool, device=model.device)
        self._is_real[:, : self._length] = True
        self._next_position = torch.full((len(loops), 1), self._length, device=model.device)

    def has_work(self) -> bool:
        """Stop late rows, drop done ones where it pays, and return whether any is left."""
        for loop in self._loops:
            if loop.stop_reason is None and loop.is_late():
                loop.end("timeout")
        live = [place for place, loop in enumerate(self._loops) if loop.stop_reason is None]
        done = len(self._loops) - len(live)
        if live and done * DROP_SHARE >= len(self._loops) and done:
            self._keep_rows(live)
        return bool(live)

    def step(self) -> None:
        """Feed every row up to the first token whose logits it wants: what is left of its prompt, then one a step."""
        fed = [[] if loop.stop_reason else loop.pending[: loop.first_wanted + 1] for loop in self._loops]
        logits = self._forward(fed)
        wanted, totals = logits.argmax(dim=-1).tolist(), logits.float().logsumexp(dim=-1).tolist()
        for place, (loop, tokens) in enumerate(zip(self._loops, fed, strict=True)):
            if tokens:
                loop.take(len(tokens), _NextToken(logits[place], wanted[place], totals[place]))

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
        self._length = end
        logits: Tensor = output.logits[:, -1]
        return logits

    def _keep_rows(self, places: list[int]) -> None:
        kept = torch.tensor(places, device=self._model.device)
        self._loops = [self._loops[place] for place in places]
        self._is_real, self._next_position = self._is_real[kept], self._next_position[kept]
        if self._length:
            for layer in self._cache.layers:
                layer.keep_rows(kept)


@dataclass(frozen=True)
class _NextToken:
    """What a model says of the token after the last one that a row was fed. The logits stay where they are.

    Attributes:
        logits: (vocabulary,).
        wanted: the likeliest token of all.
        total: the logarithm of the sum of all exponentials of them.
    """

    logits: Tensor
    wanted: int
    total: float

    def likeliest(self, index: int, among: NDArray[np.intp] | None = None) -> int:
        if among is None:
            return self.wanted
        tokens = torch.from_numpy(among).to(self.logits.device)
        return int(tokens[self.logits[tokens].argmax()])

    def log_probability(self, index: int, token: int) -> float:
        return float(self.logits[token]) - self.total
