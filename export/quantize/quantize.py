"""Weights to the blocks of a GGUF type, by ggml's own quantizers.

Source: ggml.h, ggml_quantize_chunk.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from edge_agent.engine.gguf_header import TENSOR_TYPES

if TYPE_CHECKING:
    from numpy import float32, uint8
    from numpy.typing import NDArray


def quantize(rows: NDArray[float32], type_name: str, importance: NDArray[float32] | None = None) -> NDArray[uint8]:
    """Return weights as the blocks of a type, by ggml's own quantizers, on all cores.

    Args:
        rows: float32 (out, in), contiguous; `in` goes with the type's blocks.
        type_name: such as "Q4_K".
        importance: float32 (in,), how much an error in each input counts; None counts all alike.

    Returns:
        uint8 (out, bytes of a row).
    """
    import numpy
    from llama_cpp._ggml import libggml

    number, weights, size = next(
        (number, weights, size) for number, (name, weights, size) in TENSOR_TYPES.items() if name == type_name
    )
    count, length = rows.shape
    assert rows.flags.c_contiguous and length % weights == 0, (rows.shape, type_name)
    out = numpy.empty((count, length // weights * size), numpy.uint8)
    chunk = libggml.ggml_quantize_chunk
    chunk.restype, floats = ctypes.c_size_t, ctypes.POINTER(ctypes.c_float)
    chunk.argtypes = [ctypes.c_int, floats, ctypes.c_void_p, *[ctypes.c_int64] * 3, floats]
    weighing = importance.ctypes.data_as(floats) if importance is not None else None
    workers = os.cpu_count() or 1
    share = -(-count // workers)

    def part(start: int) -> int:
        here = min(share, count - start)
        return int(chunk(number, rows.ctypes.data_as(floats), out.ctypes.data, start * length, here, length, weighing))

    with ThreadPoolExecutor(workers) as pool:
        written = sum(pool.map(part, range(0, count, share)))
    assert written == out.nbytes, (written, out.nbytes)
    return out
