"""Quantize a GGUF file, and read back that every tensor got the type it was meant to get.

llama.cpp gives a tensor whose rows are not a multiple of 256 another type without saying so; here that fails.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from devices.durable import aside_of, finish
from devices.errors import GateError, UsageError
from edge_agent.gguf_header import require_gguf
from export.llama_file import quantize_file

Quant = Literal["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS"]
QUANTS: tuple[Quant, ...] = get_args(Quant)
# Types of the weight matrices. llama.cpp gives some of them more bits (src/llama-quant.cpp), the output or, where the
# two are tied, the embedding above all. Q4_0 is what ARM boards are fastest with.
MATRIX_TYPES: dict[Quant, frozenset[str]] = {
    "F16": frozenset({"F16"}),
    "Q8_0": frozenset({"Q8_0"}),
    "Q6_K": frozenset({"Q6_K"}),
    "Q5_K_M": frozenset({"Q5_K", "Q6_K"}),
    "Q4_K_M": frozenset({"Q4_K", "Q5_K", "Q6_K"}),
    "Q4_0": frozenset({"Q4_0", "Q6_K"}),
    "IQ4_XS": frozenset({"IQ4_XS", "Q5_K", "Q6_K"}),
}
VECTOR_TYPES = frozenset({"F32"})


@dataclass(frozen=True)
class QuantReport:
    """What was written: tensors counted by type."""

    path: Path
    kind: Quant
    size_bytes: int
    types: dict[str, int]
    seconds: float


def parse_quants(texts: list[str]) -> list[Quant]:
    """Return the quantizations in command-line values such as ["F16,Q8_0", "Q4_K_M"], without repeats, in order."""
    wanted = [part.strip().upper() for text in texts for part in text.split(",") if part.strip()]
    for name in wanted:
        if name not in QUANTS:
            raise UsageError(f"unknown quantization {name!r}", hint=f"choose from {', '.join(QUANTS)}")
    if not wanted:
        raise UsageError("no quantization given", hint=f"choose from {', '.join(QUANTS)}")
    return [quant for quant in dict.fromkeys(wanted) if quant in QUANTS]


def quantize(f16: Path, out: Path, kind: Quant, *, threads: int | None = None) -> QuantReport:
    """Write an F16 GGUF file in another type; `out` appears whole or not at all. "F16" copies and verifies.

    Args:
        f16: what `convert` wrote.
        out: the file to write.
        kind: the quantization.
        threads: None is one for each core.

    Raises:
        GateError: a tensor got a type that `kind` does not mean; the message names it.
        UnavailableError: llama.cpp could not write it.
    """
    start_s = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(out)
    try:
        if kind == "F16":
            shutil.copyfile(f16, aside)
        else:
            quantize_file(f16, aside, f"MOSTLY_{kind}", threads)
        types = require_types(aside, kind)
        finish(aside, out)
    finally:
        aside.unlink(missing_ok=True)
    return QuantReport(out, kind, out.stat().st_size, types, time.monotonic() - start_s)


def require_types(path: Path, kind: Quant) -> dict[str, int]:
    """Return how many tensors of each type a GGUF file has. Raises GateError if one has a type it should not."""
    header = require_gguf(path)
    for name, type_name in header.tensor_types.items():
        is_vector = name.endswith(("_norm.weight", ".bias")) or name.startswith("rope_f")
        expected = VECTOR_TYPES if is_vector else MATRIX_TYPES[kind]
        if type_name not in expected:
            raise GateError(
                f"{kind}: tensor {name} got the type {type_name} instead of {' or '.join(sorted(expected))}",
                hint="rows that are no multiple of 256 cannot have a K-quant: use Q8_0",
            )
    return dict(sorted(Counter(header.tensor_types.values()).items()))
