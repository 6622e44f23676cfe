"""Settings of the process that make training on a CPU faster and change no result that matters."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # Source: glibc, malloc.h
LARGE_BYTES = 2**17  # with 2**20, small weights out of their four bits left holes: 2,906 MiB for 2,640


def prepare_processor() -> None:
    """Spare a CPU slow arithmetic on denormal numbers, and matrix kernels made anew in every pass.

    oneDNN keeps 1,024 kernels, one for each shape; more made no difference over 160 trees. To be called before the
    first operation.
    """
    import torch

    torch.set_flush_denormal(True)  # threads inherit it
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "30000")  # read when the first kernel is made


def keep_freed_memory(is_kept: bool) -> None:
    """Keep freed blocks for the next pass, or give every large one back to the system.

    Given back, they cost page faults: the starter trains at 2,500 tokens/s so, and at 4,000 if they are kept. Kept,
    they leave holes: torch asks for aligned blocks, which glibc 2.36 does not find in a hole of their own size, and a
    pass that holds 2.0 GiB had taken 3.5. So they are kept where there is room for that.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        if is_kept:
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        else:
            libc.mallopt(M_MMAP_MAX, 2**31 - 1)
            libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)  # said, it no longer grows by itself
