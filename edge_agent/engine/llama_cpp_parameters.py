"""How llama.cpp is to load a model and its adapter, wherever this project does: without what crashes it."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Any

import llama_cpp

from edge_agent.engine.autotune import USUAL, Tuning


def model_parameters(gpu_layers: int, tuning: Tuning = USUAL) -> Any:
    """Return llama.cpp's parameters for loading a model.

    Repacked weights suit a processor's dot products; llama.cpp makes them while it loads, beside those of the file. On
    x86-64 that is not worth it: with AVX-512, 1B as Q4_K_M, a prompt takes 6.9 ms a token with them and 4.7 without, a
    step 56 ms and 66, and the model is there 0.7 s later, with a second copy in memory. ARM's are made for Q4_0.

    Where llama.cpp was compiled with AMX, it repacks for those units and dies of a segmentation fault at the first
    evaluation (0c1e57098, GCC 12, Xeon with amx_int8, Q8_0): there are none then, whoever asks.

    Args:
        gpu_layers: layers on a GPU; -1 is all.
        tuning: `repacks` (None is what the processor is quickest with), `mmap` and `mlock` of it.
    """
    repacks = tuning.repacks
    if repacks is None:
        repacks = platform.machine().lower() not in {"x86_64", "amd64"}
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = gpu_layers
    parameters.use_mmap, parameters.use_mlock = tuning.mmap, tuning.mlock
    parameters.use_extra_bufts = repacks and b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info()
    return parameters


def apply_adapter(model: Any, context: Any, adapter: Path) -> bool:
    """Lay a LoRA adapter's file over a model; return whether llama.cpp could. It is freed with the model."""
    laid = llama_cpp.llama_adapter_lora_init(model, os.fsencode(adapter))
    one, whole = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(laid), (ctypes.c_float * 1)(1.0)
    return bool(laid) and llama_cpp.llama_set_adapters_lora(context, one, 1, whole) == 0
