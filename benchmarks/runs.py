"""What benchmarks share: a process of its own for each side, the machine with its GPU, the file of results."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from edge_agent.engine.machine import this_machine


def in_fresh_process(work: Callable[..., Any], *given: Any) -> Any:
    """Return what a function gives in a fresh process, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def gpu_name() -> str:
    """Return the GPU's name, or "" without one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def machine_with_gpu() -> dict[str, str]:
    """Return what matters for speed about this machine and its GPU."""
    return this_machine() | {"gpu": gpu_name()}


def save(result: dict[str, Any], out: Path | None) -> None:
    """Write a result as JSON, if it is to be kept."""
    if out:
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
