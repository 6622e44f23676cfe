"""Boxes by name, and the best quantization whose model, context and working memory fit one of them.

The file's size is that of its plan; what else it needs is estimated from shapes. Does not guard against: other
programs that take more of the box's memory than its profile reserves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from devices.errors import UsageError, did_you_mean
from devices.yaml_file import Strict, read_model
from edge_agent.engine.engine import CONTEXT_TOKENS
from export.architectures import Shape
from export.quantize.plan import Quant, plan

TARGETS = Path(__file__).parent / "targets.yaml"
WORKING_TOKENS = 512  # evaluated at once
BY_QUALITY: dict[str, tuple[Quant, ...]] = {
    "arm": ("Q8_0", "Q6_K", "Q5_K_M", "Q4_0", "IQ4_XS"),
    "cuda": ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS"),
    "x86": ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS"),
}


class Build(Strict):
    """What llama.cpp is compiled for: a machine as `uname -m` says it, and flags of GCC's such as -mcpu=cortex-a76."""

    machine: Literal["aarch64", "x86_64"]
    compiler_flags: str


class Target(Strict):
    """A box: its memory, how much of it is not the model's, and what it computes on."""

    memory_gib: float = Field(gt=0)
    reserved_gib: float = Field(ge=0)
    processor: Literal["arm", "cuda", "x86"]
    build: Build | None = None


class _Targets(Strict):
    schema_: Literal["targets/v1"] = Field(alias="schema")
    targets: dict[str, Target]


@dataclass(frozen=True)
class Choice:
    """A quantization for a target, and what it needs there; in bytes."""

    quant: Quant
    model: int
    context: int
    working: int
    free: int

    @property
    def reason(self) -> str:
        """Why this one, in a line."""
        parts = ((self.model, "model"), (self.context, "context"), (self.working, "working memory"))
        needs = ", ".join(f"{count / 2**30:.2f} GiB {name}" for count, name in parts)
        return f"{self.quant} is the best that fits {self.free / 2**30:.2f} GiB: about {needs}"


def load_target(name: str) -> Target:
    """Return a target by its shipped name, or by FILE.yaml:NAME.

    Raises:
        UsageError: there is none of that name, or the file is wrong; the message has file and line.
    """
    file, _, name = name.rpartition(":")
    path = Path(file) if file else TARGETS
    targets = read_model(path, _Targets, "table of targets").targets
    if name not in targets:
        hint = did_you_mean(name, targets, f"targets: {', '.join(targets)}")
        raise UsageError(f"{path} has no target {name!r}", hint=hint)
    return targets[name]


def load_build(name: str) -> Build:
    """Return what a target's kit is compiled for. Raises UsageError as `load_target`, and if it does not say."""
    if not (build := load_target(name).build):
        raise UsageError(f"target {name} has no `build`", hint="build: {machine: aarch64, compiler_flags: -mcpu=…}")
    return build


def choose_quant(target: Target, shape: Shape) -> Choice:
    """Return the best quantization that fits a target. Raises UsageError if none does; the message has the numbers."""
    free = round((target.memory_gib - target.reserved_gib) * 2**30)
    tokens = min(shape.context_tokens, CONTEXT_TOKENS)
    context = 2 * 2 * shape.layers * shape.kv_heads * shape.head_dim * tokens  # keys and values, 16 bits
    working = 4 * (WORKING_TOKENS * (4 * shape.hidden + 3 * shape.feed_forward) + shape.vocabulary)
    choices = [
        Choice(quant, plan(shape, quant).data_bytes, context, working, free) for quant in BY_QUALITY[target.processor]
    ]
    for choice in choices:
        if choice.model + context + working <= free:
            return choice
    need = (choices[-1].model + context + working) / 2**30
    raise UsageError(
        f"even as {choices[-1].quant} the model needs about {need:.2f} GiB, and {free / 2**30:.2f} are free",
        hint="choose a smaller base, or a box with more memory",
    )
