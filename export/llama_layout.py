"""How llama.cpp wants a Llama: hyperparameters, tensor names, the order of query and key rows, RoPE factors.

Source: llama.cpp 0c1e57098 convert_hf_to_gguf.py, class LlamaModel; src/llama-arch.cpp, LLM_ARCH_LLAMA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devices.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

SUPPORTED_ARCHITECTURES = ("LlamaForCausalLM",)
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class LlamaShape:
    """Hyperparameters of a Llama. `rope_factors` (one for each pair of head dimensions) is for llama3 scaling."""

    vocabulary: int
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context_tokens: int
    rms_epsilon: float
    rope_theta: float
    rope_factors: tuple[float, ...] | None
    is_tied: bool

    def tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape that a weight with this Hugging Face name must have."""
        part = name.removesuffix(".weight").rpartition(".")[2]
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes = {
            "q_proj": (queries, self.hidden),
            "k_proj": (keys, self.hidden),
            "v_proj": (keys, self.hidden),
            "o_proj": (self.hidden, queries),
            "gate_proj": (self.feed_forward, self.hidden),
            "up_proj": (self.feed_forward, self.hidden),
            "down_proj": (self.hidden, self.feed_forward),
            "embed_tokens": (self.vocabulary, self.hidden),
            "lm_head": (self.vocabulary, self.hidden),
        }
        return shapes.get(part, (self.hidden,))

    def head_count(self, name: str) -> int | None:
        """Return how many heads the rows of a weight are permuted in, or None if they are not."""
        return {"q_proj": self.heads, "k_proj": self.kv_heads}.get(name.removesuffix(".weight").rpartition(".")[2])


def read_shape(config: Mapping[str, Any]) -> LlamaShape:
    """Return the hyperparameters in a config.json.

    Raises:
        UsageError: another architecture, or a feature that this layout does not carry; the message names it.
    """
    architectures = config.get("architectures") or [config.get("model_type")]
    if list(architectures) != list(SUPPORTED_ARCHITECTURES):
        raise UsageError(
            f"architecture {', '.join(map(str, architectures))} is not supported",
            hint=f"supported: {', '.join(SUPPORTED_ARCHITECTURES)}",
        )
    wrong = {key: config[key] for key in ("attention_bias", "mlp_bias", "quantization_config") if config.get(key)}
    if config.get("hidden_act", "silu") != "silu":
        wrong["hidden_act"] = config["hidden_act"]
    if wrong:
        name, value = next(iter(wrong.items()))
        raise UsageError(f"config.json: {name} = {value!r} is not supported")
    try:
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        head_dim = config.get("head_dim") or hidden // heads
        rope = {"rope_theta": config.get("rope_theta", 10000.0)} | (config.get("rope_scaling") or {})
        rope |= config.get("rope_parameters") or {}  # where transformers 5 keeps both
        return LlamaShape(
            vocabulary=config["vocab_size"],
            hidden=hidden,
            feed_forward=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            context_tokens=config["max_position_embeddings"],
            rms_epsilon=config["rms_norm_eps"],
            rope_theta=float(rope["rope_theta"]),
            rope_factors=_rope_factors(rope, head_dim),
            is_tied=bool(config.get("tie_word_embeddings", False)),
        )
    except KeyError as error:
        raise UsageError(f"config.json lacks {error}") from error


def _rope_factors(rope: Mapping[str, Any], head_dim: int) -> tuple[float, ...] | None:
    """Return by how much each frequency is divided, for llama3 scaling.

    Source: transformers 5.23 modeling_rope_utils.py, _compute_llama3_parameters.
    """
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UsageError(f"config.json: partial_rotary_factor {rope['partial_rotary_factor']} is not supported")
    if kind == "default":
        return None
    if kind != "llama3":
        raise UsageError(f"config.json: RoPE scaling {kind!r} is not supported", hint="supported: default, llama3")
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


def tensor_names(shape: LlamaShape) -> dict[str, str]:
    """Return the GGUF name by Hugging Face name of every weight, in the order of the file."""
    names = {"model.embed_tokens.weight": "token_embd.weight"}
    for layer in range(shape.layers):
        for theirs, ours in _LAYER_NAMES.items():
            names[f"model.layers.{layer}.{theirs}.weight"] = f"blk.{layer}.{ours}.weight"
    names["model.norm.weight"] = "output_norm.weight"
    if not shape.is_tied:
        names["lm_head.weight"] = "output.weight"
    return names


def permute(weight: Tensor, heads: int) -> Tensor:
    """Return query or key rows in llama.cpp's order: RoPE pairs next to each other, not half a head apart.

    Args:
        weight: (heads · head_dim, in).
        heads: how many heads the rows are.
    """
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)
