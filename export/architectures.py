"""How llama.cpp wants each family of models: its name for it, hyperparameters, tensor names, row order, RoPE factors.

A family's attention is Llama's with small changes: Mistral's has none, Qwen2's has biases, Qwen3's norms queries and
keys, Phi-3's has queries, keys and values in one matrix and gate and up projection in another. Gemma 3's norms queries
and keys, and in most layers ends at a window; it has two more norms a layer.

Source: llama.cpp 0c1e57098 conversion/llama.py, qwen.py, phi.py, gemma.py; src/llama-arch.cpp, src/models/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devices.errors import UsageError
from export.rope import FULL, WINDOWED, Rope, read_rope

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
_FOUR_NORMS = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
}


@dataclass(frozen=True)
class Family:
    """An architecture of transformers': what llama.cpp calls it, and the GGUF name of each weight of a layer.

    Attributes:
        architecture: llama.cpp's name.
        layer: GGUF name by Hugging Face name.
        is_permuted: llama.cpp turns neighbouring rows of queries and keys, where transformers turns rows half a head
            apart.
        scalings: the kinds of RoPE scaling whose factors llama.cpp reads for it.
        activation: of the feed-forward layer.
        adds_one: transformers multiplies by 1 + weight in its norms, llama.cpp by the weight.
        is_tied: the output is the embedding, where config.json does not say.
        window_period: llama.cpp gives its layers a window, but for one in so many, where config.json does not say.
    """

    architecture: str
    layer: Mapping[str, str]
    is_permuted: bool = False
    scalings: tuple[str, ...] = ()
    activation: str = "silu"
    adds_one: bool = False
    is_tied: bool = False
    window_period: int | None = None


_LLAMA = Family("llama", _NORMS | _SEPARATE | _OUTPUTS, is_permuted=True, scalings=("llama3",))
FAMILIES = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": Family("qwen2", _NORMS | _SEPARATE | _BIASES | _OUTPUTS),
    "Qwen3ForCausalLM": Family("qwen3", _NORMS | _SEPARATE | _HEAD_NORMS | _OUTPUTS),
    "Phi3ForCausalLM": Family("phi3", _NORMS | _FUSED | _OUTPUTS, scalings=("longrope", "su")),
    "Gemma3ForCausalLM": Family(
        "gemma3",
        _FOUR_NORMS | _SEPARATE | _HEAD_NORMS | _OUTPUTS,
        activation="gelu_pytorch_tanh",
        adds_one=True,
        is_tied=True,
        window_period=6,
    ),
}
_GEMMA3_27B_LAYERS = 62  # by which llama.cpp knows it


@dataclass(frozen=True)
class Window:
    """What layers attend to, but for each `period`th: the last `tokens`; `theta` is the base of their frequencies."""

    tokens: int
    period: int
    theta: float


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
    window: Window | None = None

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

    def adds_one(self, name: str) -> bool:
        """Return whether llama.cpp wants 1 added to a weight."""
        return self.family.adds_one and name.endswith("norm.weight")


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
    try:
        _require_plain(config, family)
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        head_dim = config.get("head_dim") or hidden // heads
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
            rope=read_rope(config, family.architecture, family.scalings, head_dim),
            is_tied=bool(config.get("tie_word_embeddings", family.is_tied)),
            window=_window(config, family),
        )
    except KeyError as error:
        raise UsageError(f"config.json lacks {error}") from error


def _require_plain(config: Mapping[str, Any], family: Family) -> None:
    """Raise UsageError for the first setting that llama.cpp, or this file, does not know of."""
    unknown = (
        "attention_bias", "mlp_bias", "quantization_config", "use_sliding_window", "attn_logit_softcapping",
        "final_logit_softcapping", "use_bidirectional_attention",
    )  # fmt: skip
    wrong = {key: config[key] for key in unknown if config.get(key)}
    for key in ("hidden_act", "hidden_activation"):
        if config.get(key, family.activation) != family.activation:
            wrong[key] = config[key]
    if config.get("query_pre_attn_scalar", query_scalar(config)) != query_scalar(config):
        wrong["query_pre_attn_scalar"] = config["query_pre_attn_scalar"]
    if wrong:
        name, value = next(iter(wrong.items()))
        raise UsageError(f"config.json: {name} = {value!r} is not supported")


def query_scalar(config: Mapping[str, Any]) -> int:
    """Return by the root of what llama.cpp divides scores of attention; no file says it."""
    width: int = config["hidden_size"] // config["num_attention_heads"]
    is_narrow = config["num_hidden_layers"] == _GEMMA3_27B_LAYERS
    return width if is_narrow else config.get("head_dim") or width


def _window(config: Mapping[str, Any], family: Family) -> Window | None:
    """Return the window of most layers. Raises UsageError if those without one do not come at regular places."""
    if family.window_period is None:
        return None
    layers, kinds = config["num_hidden_layers"], config.get("layer_types")
    period = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or family.window_period
    if kinds:
        period = 1 + (kinds.index(FULL) if FULL in kinds else layers)
        if list(kinds) != layer_types(layers, period):
            raise UsageError(f"config.json: layer_types is supported with {FULL} at every layer of a number only")
    rope = (config.get("rope_parameters") or {}).get(WINDOWED, {})
    if (kind := rope.get("rope_type", "default")) != "default":
        raise UsageError(f"config.json: RoPE scaling {kind!r} is not supported for layers with a window")
    theta = rope.get("rope_theta") or config.get("rope_local_base_freq", 10000.0)
    return Window(config["sliding_window"], period, float(theta))


def layer_types(layers: int, period: int) -> list[str]:
    """Return transformers' names of the layers' kinds: each `period`th attends to all."""
    return [WINDOWED if (layer + 1) % period else FULL for layer in range(layers)]


def _context(config: Mapping[str, Any], family: Family) -> int:
    """Return the longest context in which each token sees all before it, as llama.cpp lets it."""
    context: int = config["max_position_embeddings"]
    is_known = family.window_period or family.architecture.startswith("qwen")  # theirs is off above
    window = None if is_known else config.get("sliding_window")
    return min(context, window) if window else context


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
