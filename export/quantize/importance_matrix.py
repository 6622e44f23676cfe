"""An importance matrix: how much an error in each input of a weight matrix counts, in llama.cpp's own file form.

Quantizing weighs errors by it, so that weights that meet large inputs keep more of their value. It comes from the run's
sample conversations, which are training data; held-out cases are never among them.

Source: llama.cpp 0c1e57098 tools/imatrix/imatrix.cpp, save_imatrix; tools/quantize/quantize.cpp, prepare_imatrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from devices.durable import aside_of, finish
from edge_agent.engine.engine import common_length
from export.architectures import Shape
from export.llama_cpp_file import LlamaFile
from export.trained.reference import Reference
from export.trained.samples import SCORED_TOKENS, Sample

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

CHUNK_TOKENS = 512  # what llama.cpp counts in; only told


def measure_importance(
    reference: Reference, shape: Shape, f16: Path, samples: Sequence[Sample]
) -> tuple[dict[str, NDArray[float32]], int]:
    """Return the sum of squares of each input by GGUF name, float32 (in,), and of how many tokens it is."""
    with LlamaFile(f16) as model:
        rows = [model.tokenize(sample.text)[:SCORED_TOKENS] for sample in samples]
    shared = reduce(lambda first, row: first[: common_length(first, row)], rows[1:], rows[0])
    start = min(len(shared), *(len(row) - 1 for row in rows))
    return reference.importance(shape, rows, start)


def mean_squares(sums: dict[str, NDArray[float32]], tokens: int) -> dict[str, NDArray[float32]]:
    """Return what quantizing weighs errors by; divided as llama.cpp divides what it reads from the file."""
    import numpy

    return {name: total / numpy.float32(tokens) for name, total in sums.items()}


def write_importance(path: Path, sums: dict[str, NDArray[float32]], tokens: int, source: str) -> None:
    """Write an importance matrix's file; it appears whole or not at all.

    Args:
        path: the file.
        sums: of squares, float32 (in,) by GGUF name.
        tokens: of how many.
        source: of the texts.
    """
    import gguf
    import numpy

    aside = aside_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(aside, "")
    writer.add_type(gguf.GGUFType.IMATRIX)
    writer.add_array(gguf.Keys.IMatrix.DATASETS, [source])
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, max(1, tokens // CHUNK_TOKENS))
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, CHUNK_TOKENS)
    try:
        for name, total in sums.items():
            writer.add_tensor(f"{name}.in_sum2", total[None, :])
            writer.add_tensor(f"{name}.counts", numpy.array([[tokens]], numpy.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        finish(aside, path)
    finally:
        aside.unlink(missing_ok=True)
