"""Settings of the process that make training on a CPU faster and change no result that matters."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # Source: glibc, malloc.h


def prepare_processor() -> None:
    """Spare a CPU slow arithmetic on denormal numbers, and work done anew in every pass: memory and matrix kernels.

    glibc gives large blocks back to the system, which cost 11 % of a small model's time in page faults (0.58 and
    0.51 s a tree, 2 cores). oneDNN keeps 1,024 kernels, one for each shape; more made no difference over 160 trees.
    To be called before the first operation.
    """
    import torch

    torch.set_flush_denormal(True)  # threads inherit it
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "30000")  # read when the first kernel is made
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
