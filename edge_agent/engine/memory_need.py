"""How much memory an agent needs on a box, from its model's header and how the engine computes.

An estimate, held against the peak of the engine's process once it was primed (2 cores, x86-64, llama.cpp 0c1e57098,
F16, the site home; one conversation, and four): the starter 76 and 95 MB where 79 and 98 are estimated,
SmolLM2-135M 417 and 559 MB where 430 and 572 are. The controller's process took 56 MB for `run`, 78 for `serve`.

Does not guard against: whatever else runs on the box; a GPU's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.engine.autotune import KvType, Tuning

ENGINE_BYTES = 62_000_000  # Python, numpy, llama.cpp and llguidance
CONTROLLER_BYTES = 80_000_000
USUAL_VOCABULARY = 128_256  # where the header does not tell: Llama 3's
_FLOAT_BYTES = 4
_KV_BYTES: dict[KvType, float] = {"f16": 2, "q8_0": 34 / 32}


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes by what they are for: weights, keys and values of every conversation, buffers, both processes."""

    weights: int
    context: int
    buffers: int
    processes: int = ENGINE_BYTES + CONTROLLER_BYTES

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.weights + self.context + self.buffers + self.processes


def memory_need(
    metadata: Mapping[str, bool | int | float | str],
    weights_bytes: int,
    context_tokens: int,
    tuning: Tuning,
    conversations: int = 1,
) -> MemoryNeed:
    """Return what an agent needs.

    Args:
        metadata: of the model's GGUF header.
        weights_bytes: the files of model and adapter.
        context_tokens: that the engine is asked for; it takes no more than the model has.
        tuning: of the engine.
        conversations: that keep what was evaluated of them.
    """

    def number(key: str, otherwise: int) -> int:
        found = metadata.get(f"{metadata.get('general.architecture', 'llama')}.{key}", otherwise)
        return found if isinstance(found, int) else otherwise

    heads = number("attention.head_count", 1)
    head_size = number("embedding_length", 0) // max(heads, 1)
    sizes = number("attention.key_length", head_size) + number("attention.value_length", head_size)
    values = number("block_count", 1) * number("attention.head_count_kv", heads) * sizes
    tokens = min(context_tokens, number("context_length", context_tokens)) * conversations
    scores = tuning.batch_tokens * number("vocab_size", USUAL_VOCABULARY)
    return MemoryNeed(weights_bytes, round(tokens * values * _KV_BYTES[tuning.kv_type]), scores * _FLOAT_BYTES)
