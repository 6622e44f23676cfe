"""Decoder layers compiled by torch, for runs that are long enough: a quarter off each step, a minute at the first one.

Norms, rotary embeddings, activations, sums and casts become few loops over memory. Matrix products and the attention of
shared prefixes stay as they are.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

from devices.errors import UnavailableError

MOST_VARIANTS = 64  # of one function, for other shapes or modes; torch gives up at 8, and then runs it uncompiled


def compile_layers(model: Any) -> None:
    """Compile the layers of a causal model in place; that happens when a batch first passes through them."""
    import torch

    torch._dynamo.config.recompile_limit = MOST_VARIANTS
    for layer in model.base_model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)


def require_compiler() -> None:
    """Raise UnavailableError if torch cannot compile for a CPU here."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise _unavailable("a C++ compiler", "g++") from error
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise _unavailable("Python's headers", "python3-dev")


def _unavailable(what: str, package: str) -> UnavailableError:
    hint = f"install {package}, or set training.is_compiled=false"
    return UnavailableError(f"training.is_compiled needs {what}, and finds none", hint=hint)
