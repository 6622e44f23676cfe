"""What NF4 keeps of a weight: an adapter that was trained on a 4-bit base saw these values and no others.

Merging into the 4-bit weights themselves would round the adapter away; merging into what they stand for does not.
Source: QLoRA, arXiv 2305.14314; bitsandbytes 0.50 functional.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 64  # weights that share a scale; transformers' default, with double quantization


def is_quantized(name: str) -> bool:
    """Return whether 4-bit loading quantizes a weight: the projections of the layers, by Hugging Face name."""
    return name.endswith("_proj.weight")


def base_weight(name: str, weight: Tensor, nf4_dtype: str) -> Tensor:
    """Return what an adapter is merged into, float32: a weight as it is, or what NF4 keeps of it.

    Args:
        name: the weight's, as Hugging Face has it.
        weight: of the base.
        nf4_dtype: as `as_nf4`, or "" for the weight as it is.
    """
    return as_nf4(weight, nf4_dtype) if nf4_dtype and is_quantized(name) else weight.float()


def as_nf4(weight: Tensor, dtype_name: str) -> Tensor:
    """Return a weight as NF4 with double quantization holds it, float32 (out, in).

    Args:
        weight: (out, in).
        dtype_name: torch's name of the type that the base was loaded in, and computed in.
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(
        weight.to(getattr(torch, dtype_name)), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
    )
    held: Tensor = dequantize_4bit(packed, state)
    return held.float()
