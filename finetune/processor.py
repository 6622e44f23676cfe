"""Settings of the process that make training on a CPU faster and change no result that matters."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # Source: glibc, malloc.h
LARGE_BYTES = 2**17  # with 2**20, small weights out of their four bits left holes: 2,906 MiB for 2,640


def prepare_processor(*, keeps_memory: bool) -> None:
    """Spare a CPU slow arithmetic on denormal numbers, and work done anew in every pass: memory and matrix kernels.

    glibc gives large blocks back to the system, which cost 11 % of a small model's time in page faults (0.58 and
    0.51 s a tree, 2 cores). Kept, they leave holes: torch asks for aligned blocks, which glibc 2.36 does not find in a
    hole of their own size, and a pass that holds 2.0 GiB had taken 3.5. oneDNN keeps 1,024 kernels, one for each shape;
    more made no difference over 160 trees. To be called before the first operation.

    Args:
        keeps_memory: keep freed blocks, for small models; else every large one goes back to the system.
    """
    import torch

    torch.set_flush_denormal(True)  # threads inherit it
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "30000")  # read when the first kernel is made
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        if keeps_memory:
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        else:
            libc.mallopt(M_MMAP_MAX, 2**31 - 1)
            libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)  # said, it no longer grows by itself
