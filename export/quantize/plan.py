"""Which type each tensor of a file gets: planned before anything is written, compared with the file afterwards.

The mixes are llama.cpp's own, which gives some tensors more bits, the output above all, or the embedding where the two
are tied. Where a row's length does not go with a type llama.cpp takes another without saying so; here the plan says so.

Source: llama.cpp 0c1e57098 src/llama-quant.cpp, llama_tensor_get_type_impl and tensor_type_fallback.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Literal, get_args

from devices.errors import GateError, UsageError
from edge_agent.engine.gguf_header import TENSOR_TYPES, require_gguf
from export.architectures import Shape, tensor_names

Quant = Literal["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS"]
QUANTS: tuple[Quant, ...] = get_args(Quant)
BLOCKS = {name: (weights, size_bytes) for name, weights, size_bytes in TENSOR_TYPES.values()}
# For rows that are no multiple of 256.
FALLBACKS = {"Q6_K": "Q8_0", "Q5_K": "Q5_1", "Q4_K": "Q5_0", "IQ4_XS": "IQ4_NL"}
IMPROVED: frozenset[Quant] = frozenset({"Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS"})  # by an importance matrix
_VALUES = ("attn_v.weight", "attn_qkv.weight")
_ALIGNMENT = 32  # of a tensor's first byte


@dataclass(frozen=True)
class Planned:
    """A tensor to write.

    Attributes:
        name: in GGUF.
        source: in Hugging Face; "" for factors of positions.
        shape: (out, in), or (size,).
        type: of its blocks.
        reason: why it is not what the mix gives; "" if it is.
    """

    name: str
    source: str
    shape: tuple[int, ...]
    type: str
    reason: str = ""

    @property
    def size_bytes(self) -> int:
        """Its bytes in the file, without padding."""
        weights, size = BLOCKS[self.type]
        return prod(self.shape) // weights * size


@dataclass(frozen=True)
class Plan:
    """Every tensor of a file, in its order, by a mix."""

    quant: Quant
    tensors: tuple[Planned, ...]

    @property
    def data_bytes(self) -> int:
        """Size of all tensors in the file, padding included."""
        return sum(-(-tensor.size_bytes // _ALIGNMENT) * _ALIGNMENT for tensor in self.tensors)

    @property
    def exceptions(self) -> list[str]:
        """A line for each kind of exception from the mix, with how many tensors it concerns."""
        counts = Counter((tensor.type, tensor.reason) for tensor in self.tensors if tensor.reason)
        return [f"{count} tensors are {type_name}, {reason}" for (type_name, reason), count in counts.items()]


def parse_quants(texts: list[str]) -> list[Quant]:
    """Return the quantizations in command-line values such as ["F16,Q8_0", "Q4_K_M"], without repeats, in order."""
    wanted = [part.strip().upper() for text in texts for part in text.split(",") if part.strip()]
    for name in wanted:
        if name not in QUANTS:
            raise UsageError(f"unknown quantization {name!r}", hint=f"choose from {', '.join(QUANTS)}")
    if not wanted:
        raise UsageError("no quantization given", hint=f"choose from {', '.join(QUANTS)}")
    return [quant for quant in dict.fromkeys(wanted) if quant in QUANTS]


def parse_overrides(texts: Sequence[str]) -> dict[str, str]:
    """Return types by pattern, from command-line values such as "blk.*.attn_v.weight=Q8_0".

    Raises:
        UsageError: not of that form, or no such type.
    """
    overrides = {}
    for text in texts:
        pattern, _, type_name = text.rpartition("=")
        if not pattern or type_name.upper() not in BLOCKS:
            raise UsageError(f"--tensor {text}: not PATTERN=TYPE", hint=f"types: {', '.join(BLOCKS)}")
        overrides[pattern] = type_name.upper()
    return overrides


def plan(
    shape: Shape, quant: Quant, overrides: Mapping[str, str] | None = None, *, has_importance: bool = False
) -> Plan:
    """Return every tensor of a file with its type, in the order of the file.

    Args:
        shape: of the model.
        quant: the mix.
        overrides: types by pattern of names, as a shell's; the last that fits counts.
        has_importance: whether an importance matrix will be used; llama.cpp's mixes depend on it.

    Raises:
        UsageError: an override fits no weight matrix, or its type does not go with a row's length.
    """
    tensors = [Planned(name, "", (len(values),), "F32") for name, values in shape.rope.factors.items()]
    for source, name in tensor_names(shape).items():
        size = shape.tensor_shape(source)
        tensor = Planned(name, source, size, "F32")
        if len(size) == 2:
            tensor = _fitting(replace(tensor, type=_mixed(shape, name, quant, has_importance)))
        tensors.append(tensor)
    for pattern, type_name in (overrides or {}).items():
        _override(tensors, pattern, type_name)
    return Plan(quant, tuple(tensors))


def _override(tensors: list[Planned], pattern: str, type_name: str) -> None:
    found = [n for n, tensor in enumerate(tensors) if len(tensor.shape) == 2 and fnmatchcase(tensor.name, pattern)]
    if not found:
        raise UsageError(f"--tensor {pattern}={type_name} fits no weight matrix", hint="--dry-run shows their names")
    for index in found:
        row, block = tensors[index].shape[1], BLOCKS[type_name][0]
        if row % block:
            raise UsageError(f"{tensors[index].name} cannot be {type_name}: its rows of {row} do not divide by {block}")
        tensors[index] = replace(tensors[index], type=type_name, reason="as asked")


def _mixed(shape: Shape, name: str, quant: Quant, has_importance: bool) -> str:
    """Return the type that llama.cpp's mix gives a weight matrix."""
    usual = quant.removesuffix("_M")
    if quant in ("F16", "Q8_0"):
        return usual
    if name == ("token_embd.weight" if shape.is_tied else "output.weight"):
        return "Q8_0" if shape.hidden % BLOCKS[usual][0] else "Q6_K"
    layer = int(name.split(".")[1]) if name.startswith("blk.") else -1
    is_early = 0 <= layer < shape.layers // 8
    is_value, is_down = name.endswith(_VALUES), name.endswith("ffn_down.weight")
    if quant in ("Q4_K_M", "Q5_K_M") and (is_value or is_down):
        is_late, is_third = layer >= 7 * shape.layers // 8, (layer - shape.layers // 8) % 3 == 2
        return "Q6_K" if is_early or is_late or is_third else usual
    if quant == "IQ4_XS":
        is_shared = is_value and shape.heads // shape.kv_heads >= 4
        return "Q5_K" if is_shared or (is_down and is_early and not has_importance) else usual
    return "Q4_1" if quant == "Q4_0" and is_down and is_early and has_importance else usual


def _fitting(tensor: Planned) -> Planned:
    """Return a tensor with a type that goes with the length of its rows."""
    row, wanted = tensor.shape[1], tensor.type
    if row % BLOCKS[wanted][0] == 0:
        return tensor
    other = FALLBACKS.get(wanted, wanted)
    other = "F16" if row % BLOCKS[other][0] else other
    return replace(tensor, type=other, reason=f"not {wanted}: rows of {row} weights")


def require_plan(path: Path, planned: Plan) -> dict[str, int]:
    """Return how many tensors of each type a file has.

    Raises:
        GateError: it has other tensors than planned, or one of another type; the message names it.
    """
    actual, expected = require_gguf(path).tensor_types, {tensor.name: tensor.type for tensor in planned.tensors}
    for name in sorted(actual.keys() | expected.keys()):
        if actual.get(name) != expected.get(name):
            raise GateError(
                f"gate plan: {path.name}: tensor {name} is {actual.get(name, 'missing')}, the plan says "
                f"{expected.get(name, 'none of that name')}"
            )
    return dict(sorted(Counter(actual.values()).items()))
