"""A LoRA adapter as peft saves it, and what it makes of a weight. Other kinds than those named here are refused.

Source: peft 0.21 tuners/lora (LoraConfig, Linear.get_delta_weight; DoRA: variants.py, DoraLinearVariant.merge_safe);
rank-stabilized scale: arXiv 2312.03732; DoRA: arXiv 2402.09353.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?:(?P<side>[AB])\.weight|(?P<size>magnitude)_vector)$")
# Settings of LoraConfig that change the arithmetic; each must be empty.
_UNSUPPORTED = (
    "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "modules_to_save", "trainable_token_indices",
    "target_parameters", "layer_replication", "arrow_config",
    "alora_invocation_tokens", "kasa_config", "monteclora_config", "velora_config", "megatron_config",
)  # fmt: skip
# These start from an unchanged base; others (pissa, olora, corda, loftq, ...) train against a changed one.
_INITIALIZERS = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass
class Adapter:
    """A LoRA adapter: by module its scale and its weights; `unused` are modules whose update nobody asked for yet."""

    scales: dict[str, float] = field(default_factory=dict)
    sides: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    unused: set[str] = field(default_factory=set)

    def merge_into(self, weight_name: str, weight: Tensor) -> Tensor:
        """Return weight + scale · B A in float32; DoRA gives each of its rows the length that was trained.

        Args:
            weight_name: such as "model.layers.0.self_attn.q_proj.weight".
            weight: float32 (out, in).

        Raises:
            UsageError: the adapter's shapes do not fit.
        """
        module = weight_name.removesuffix(".weight")
        if module not in self.sides:
            return weight
        low, high = self.sides[module]["A"].float(), self.sides[module]["B"].float()
        if high.shape[0] != weight.shape[0] or low.shape[1] != weight.shape[1] or high.shape[1] != low.shape[0]:
            raise UsageError(
                f"adapter for {module}: {tuple(high.shape)} times {tuple(low.shape)} for {tuple(weight.shape)}",
                hint="the adapter was trained on another base",
            )
        self.unused.discard(module)
        merged = weight + self.scales[module] * (high @ low)
        if (lengths := self.sides[module].get("magnitude")) is None:
            return merged
        return merged * (lengths.float() / merged.norm(dim=1))[:, None]


def read_adapter(folder: Path) -> Adapter:
    """Return the adapter in a folder with adapter_config.json and adapter_model.safetensors.

    Raises:
        UsageError: cannot be read, or is no LoRA that can be merged; the message names the setting or the key.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(f"cannot read the adapter {folder}: {error}") from error
    _require_plain(config, folder)
    expected = {"A", "B", "magnitude"} if config.get("use_dora") else {"A", "B"}
    sides: dict[str, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if not match:
            raise UsageError(f"{folder}: the adapter has {key}, which is not LoRA on a linear layer")
        sides.setdefault(match["module"], {})[match["side"] or match["size"]] = tensor
    scales: dict[str, float] = {}
    for module, pair in sides.items():
        if set(pair) != expected:
            there, needed = (", ".join(f"lora_{side}" for side in sorted(sides)) for sides in (set(pair), expected))
            raise UsageError(f"{folder}: the adapter has {there} of {module}, its configuration says {needed}")
        rank = _of_module(config.get("rank_pattern"), module, config["r"])
        if pair["A"].shape[0] != rank:
            raise UsageError(f"{folder}: {module} has rank {pair['A'].shape[0]}, the configuration says {rank:g}")
        alpha = _of_module(config.get("alpha_pattern"), module, config["lora_alpha"])
        scales[module] = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Adapter(scales, sides, set(sides))


def _of_module(pattern: dict[str, Any] | None, module: str, usual: float) -> float:
    """Return what a pattern says of a module, by the end of its name or a regular expression for it."""
    found = (value for key, value in (pattern or {}).items() if re.match(rf"(.*\.)?({key})$", module))
    return float(next(found, usual))


def _require_plain(config: dict[str, Any], folder: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise UsageError(f"{folder}: peft_type {config.get('peft_type')!r} is not supported", hint="supported: LORA")
    for key in _UNSUPPORTED:
        if config.get(key):
            raise UsageError(
                f"{folder}: {key} = {config[key]!r} cannot be merged", hint="supported: LoRA, rsLoRA and DoRA"
            )
    if config.get("bias", "none") != "none":
        raise UsageError(f"{folder}: bias = {config['bias']!r} cannot be merged", hint="train with bias none")
    if config.get("init_lora_weights") not in _INITIALIZERS:
        raise UsageError(f"{folder}: init_lora_weights = {config['init_lora_weights']!r} changes the base model")
    if not isinstance(config.get("r"), int) or config["r"] < 1 or not isinstance(config.get("lora_alpha"), int | float):
        raise UsageError(f"{folder}: r = {config.get('r')!r}, lora_alpha = {config.get('lora_alpha')!r}")
