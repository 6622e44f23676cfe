"""How llama.cpp is to load a model, wherever this project does: without what crashes it."""

from __future__ import annotations

from typing import Any

import llama_cpp


def model_parameters(gpu_layers: int) -> Any:
    """Return llama.cpp's parameters for loading a model.

    Where llama.cpp was compiled with AMX, it repacks quantized weights for those units and dies of a segmentation fault
    at the first evaluation (0c1e57098, GCC 12, Xeon with amx_int8, Q8_0). There its repacked forms are left out, all of
    them, as they have one switch; AVX-512 does the work.

    Args:
        gpu_layers: layers on a GPU; -1 is all.
    """
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = gpu_layers
    parameters.use_extra_bufts = b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info()
    return parameters
