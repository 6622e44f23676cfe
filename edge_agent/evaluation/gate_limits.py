"""What an export's gates let through: `gates` in a recipe, and `--gate NAME=VALUE` of `edgewright export`."""

from __future__ import annotations

from pydantic import Field

from devices.yaml_file import Strict


class GateLimits(Strict):
    """Limits of the gates; KL divergences in nats a token.

    Attributes:
        logits_kl: mean, F16 file from the Hugging Face model in float32. A right conversion measures 1e-7 to 1e-5;
            without the adapter, with its scale off by √rank or with unpermuted rows it is above 1e-2.
        logits_top1: share of positions at which both prefer the same token, where the preference is no near-tie.
        quant_kl: mean, a quantized file from the F16 file: it catches a broken file, not a weak one.
        call_kl: the same on tokens of calls alone, where an argument is one token off.
        call_top1: share of call tokens at which a quantized file prefers what the F16 file does.
        endings: share of replies that end by themselves.
        task_drop: by how much the share of tasks done may fall from the Hugging Face model to a file before the fall
            counts; what a paired bootstrap cannot tell from that never counts.
        beyond_context: whether models with scaled positions are compared beyond their original context.
    """

    logits_kl: float = Field(default=1e-3, gt=0)
    logits_top1: float = Field(default=0.99, ge=0, le=1)
    quant_kl: float = Field(default=1.0, gt=0)
    call_kl: float = Field(default=0.1, gt=0)
    call_top1: float = Field(default=0.98, ge=0, le=1)
    endings: float = Field(default=0.5, ge=0, le=1)
    task_drop: float = Field(default=0.0, ge=0, le=1)
    beyond_context: bool = True
