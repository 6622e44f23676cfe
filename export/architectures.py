"""How llama.cpp wants each family of models: its name for it, hyperparameters, tensor names, row order, RoPE factors.

A family's attention is Llama's with small changes: Mistral's has none, Qwen2's has biases, Qwen3's norms queries and
keys, Phi-3's has queries, keys and values in one matrix and gate and up projection in another.

Source: llama.cpp 0c1e57098 conversion/llama.py, qwen.py, phi.py; src/llama-arch.cpp, src/models/.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from devices.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

_NORMS = {"input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "ffn_norm.weight"}
_OUTPUTS = {"self_attn.o_proj.weight": "attn_output.weight", "mlp.down_proj.weight": "ffn_down.weight"}
_SEPARATE = {
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
}
_FUSED = {"self_attn.qkv_proj.weight": "attn_qkv.weight", "mlp.gate_up_proj.weight": "ffn_up.weight"}
_BIASES = {f"self_attn.{side}_proj.bias": f"attn_{side}.bias" for side in "qkv"}
_HEAD_NORMS = {"self_attn.q_norm.weight": "attn_q_norm.weight", "self_attn.k_norm.weight": "attn_k_norm.weight"}


@dataclass(frozen=True)
class Family:
    """An architecture of transformers': what llama.cpp calls it, and the GGUF name of each weight of a layer.

    `is_permuted` says that llama.cpp turns neighbouring rows of queries and keys, where transformers turns rows half a
    head apart. `scalings` are the kinds of RoPE scaling whose factors llama.cpp reads for it.
    """

    architecture: str
    layer: Mapping[str, str]
    is_permuted: bool = False
    scalings: tuple[str, ...] = ()


_LLAMA = Family("llama", _NORMS | _SEPARATE | _OUTPUTS, is_permuted=True, scalings=("llama3",))
FAMILIES = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": Family("qwen2", _NORMS | _SEPARATE | _BIASES | _OUTPUTS),
    "Qwen3ForCausalLM": Family("qwen3", _NORMS | _SEPARATE | _HEAD_NORMS | _OUTPUTS),
    "Phi3ForCausalLM": Family("phi3", _NORMS | _FUSED | _OUTPUTS, scalings=("longrope", "su")),
}


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


@dataclass(frozen=True)
class Shape:
    """Hyperparameters of a model."""

    family: Family
    vocabulary: int
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context_tokens: int
    rms_epsilon: float
    rope: Rope
    is_tied: bool

    def tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape that a weight with this Hugging Face name must have."""
        module, _, kind = name.rpartition(".")
        part = module.rpartition(".")[2]
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        rows = {"q_proj": queries, "k_proj": keys, "v_proj": keys, "qkv_proj": queries + 2 * keys,
                "gate_proj": self.feed_forward, "up_proj": self.feed_forward, "gate_up_proj": 2 * self.feed_forward,
                "embed_tokens": self.vocabulary, "lm_head": self.vocabulary}  # fmt: skip
        if part in {"q_norm", "k_norm"}:
            return (self.head_dim,)
        if part in rows:
            return (rows[part],) if kind == "bias" else (rows[part], self.hidden)
        return {"o_proj": (self.hidden, queries), "down_proj": (self.hidden, self.feed_forward)}.get(
            part, (self.hidden,)
        )

    def head_count(self, name: str) -> int | None:
        """Return how many heads the rows of a weight are permuted in, or None if they are not."""
        counts = {"q_proj": self.heads, "k_proj": self.kv_heads} if self.family.is_permuted else {}
        return counts.get(name.removesuffix(".weight").rpartition(".")[2])


def read_shape(config: Mapping[str, Any]) -> Shape:
    """Return the hyperparameters in a config.json.

    Raises:
        UsageError: another architecture, or a feature that this layout does not carry; the message names it.
    """
    architectures = config.get("architectures") or [config.get("model_type")]
    if len(architectures) != 1 or architectures[0] not in FAMILIES:
        raise UsageError(
            f"architecture {', '.join(map(str, architectures))} is not supported",
            hint=f"supported: {', '.join(FAMILIES)}",
        )
    family = FAMILIES[architectures[0]]
    keys = ("attention_bias", "mlp_bias", "quantization_config", "use_sliding_window")
    wrong = {key: config[key] for key in keys if config.get(key)}
    if config.get("hidden_act", "silu") != "silu":
        wrong["hidden_act"] = config["hidden_act"]
    if wrong:
        name, value = next(iter(wrong.items()))
        raise UsageError(f"config.json: {name} = {value!r} is not supported")
    try:
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        head_dim = config.get("head_dim") or hidden // heads
        context = config["max_position_embeddings"]
        rope = {"rope_theta": config.get("rope_theta", 10000.0)} | (config.get("rope_scaling") or {})
        rope |= config.get("rope_parameters") or {}  # where transformers 5 keeps both
        return Shape(
            family=family,
            vocabulary=config["vocab_size"],
            hidden=hidden,
            feed_forward=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            context_tokens=_context(config, family),
            rms_epsilon=config["rms_norm_eps"],
            rope=_rope(rope, family, head_dim, context, config.get("original_max_position_embeddings")),
            is_tied=bool(config.get("tie_word_embeddings", False)),
        )
    except KeyError as error:
        raise UsageError(f"config.json lacks {error}") from error


def _context(config: Mapping[str, Any], family: Family) -> int:
    """Return the longest context in which each token sees all before it, as llama.cpp lets it."""
    context: int = config["max_position_embeddings"]
    window = None if family.architecture.startswith("qwen") else config.get("sliding_window")  # theirs is off above
    return min(context, window) if window else context


def _rope(rope: Mapping[str, Any], family: Family, head_dim: int, context: int, original: int | None) -> Rope:
    kind, theta = rope.get("rope_type") or rope.get("type") or "default", float(rope["rope_theta"])
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UsageError(f"config.json: partial_rotary_factor {rope['partial_rotary_factor']} is not supported")
    if kind == "default":
        return Rope(theta)
    if kind not in family.scalings:
        raise UsageError(
            f"config.json: RoPE scaling {kind!r} is not supported for {family.architecture}",
            hint=f"supported: {', '.join(('default', *family.scalings))}",
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


def tensor_names(shape: Shape) -> dict[str, str]:
    """Return the GGUF name by Hugging Face name of every weight, in the order of the file."""
    names = {"model.embed_tokens.weight": "token_embd.weight"}
    for layer in range(shape.layers):
        for theirs, ours in shape.family.layer.items():
            names[f"model.layers.{layer}.{theirs}"] = f"blk.{layer}.{ours}"
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


def unpermute(weight: Tensor, heads: int) -> Tensor:
    """Return query or key rows in the order of transformers: what `permute` took apart."""
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape)
