"""Rotary position embedding (RoPE): how positions turn queries and keys, in config.json and for llama.cpp.

Source: transformers 5.23 modeling_rope_utils.py; llama.cpp 0c1e57098 conversion/llama.py, phi.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from devices.errors import UsageError

FULL, WINDOWED = "full_attention", "sliding_attention"  # transformers' names of kinds of layers


@dataclass(frozen=True)
class Rope:
    """How positions turn queries and keys.

    Attributes:
        theta: base of the frequencies.
        factors: tensors by GGUF name, each with by how much the frequency of a pair of head dimensions is divided.
        original_context: tokens that the model was first trained for, if its positions are scaled.
        attention_factor: what scaled frequencies multiply queries and keys by; None is 1.
    """

    theta: float
    factors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    original_context: int | None = None
    attention_factor: float | None = None


def read_rope(config: Mapping[str, Any], architecture: str, scalings: Sequence[str], head_dim: int) -> Rope:
    """Return how a config.json turns positions; of layers that attend to all, if there are others.

    Args:
        config: its contents.
        architecture: llama.cpp's name.
        scalings: the kinds of scaling whose factors llama.cpp reads for it.
        head_dim: width of a head.

    Raises:
        UsageError: another kind of scaling.
        KeyError: a key is missing.
    """
    rope = {"rope_theta": config.get("rope_theta", 10000.0)} | (config.get("rope_scaling") or {})
    scaled = config.get("rope_parameters") or {}  # where transformers 5 keeps both
    rope |= scaled.get(FULL, scaled)
    context, original = config["max_position_embeddings"], config.get("original_max_position_embeddings")
    kind, theta = rope.get("rope_type") or rope.get("type") or "default", float(rope["rope_theta"])
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UsageError(f"config.json: partial_rotary_factor {rope['partial_rotary_factor']} is not supported")
    if kind == "default":
        return Rope(theta)
    if kind not in scalings:
        raise UsageError(
            f"config.json: RoPE scaling {kind!r} is not supported for {architecture}",
            hint=f"supported: {', '.join(('default', *scalings))}",
        )
    if kind == "llama3":
        factors = {"rope_freqs.weight": _llama3_factors(rope, head_dim)}
        return Rope(theta, factors, rope["original_max_position_embeddings"])
    old = rope.get("original_max_position_embeddings") or original or context
    scale = rope.get("factor") or context / old
    attention = rope.get("attention_factor") or (math.sqrt(1 + math.log(scale) / math.log(old)) if scale > 1 else 1)
    factors = {f"rope_factors_{name}.weight": tuple(map(float, rope[f"{name}_factor"])) for name in ("long", "short")}
    if any(len(one) != head_dim // 2 for one in factors.values()):
        raise UsageError(f"config.json: longrope wants {head_dim // 2} factors, for half a head")
    return Rope(theta, factors, old, float(attention))


def _llama3_factors(rope: Mapping[str, Any], head_dim: int) -> tuple[float, ...]:
    """Return by how much each frequency is divided. Source: transformers 5.23, _compute_llama3_parameters."""
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    old_context = rope["original_max_position_embeddings"]
    factors = []
    for dimension in range(0, head_dim, 2):
        turns = old_context * float(rope["rope_theta"]) ** (-dimension / head_dim) / (2 * math.pi)
        if turns > high:
            factors.append(1.0)
        elif turns < low:
            factors.append(float(factor))
        else:
            smooth = (turns - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(factors)
