"""How models are loaded: without the forms of the weights that crash llama.cpp on processors with AMX."""

from __future__ import annotations

import llama_cpp
import pytest

from edge_agent.engine.autotune import Tuning
from edge_agent.engine.llama_cpp_model import model_parameters


@pytest.mark.parametrize(("system", "is_repacked"), [(b"AVX512 = 1 | AMX_INT8 = 1 | ", False), (b"NEON = 1 | ", True)])
def test_repacked_weights_are_left_out_where_llama_cpp_has_amx(
    monkeypatch: pytest.MonkeyPatch, system: bytes, is_repacked: bool
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_print_system_info", lambda: system)
    parameters = model_parameters(-1, Tuning(repacks=True, mmap=False, mlock=True))
    assert not parameters.use_mmap and parameters.use_mlock
    assert parameters.use_extra_bufts is is_repacked and parameters.n_gpu_layers == -1
    for machine in ("x86_64", "aarch64"):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        assert model_parameters(0).use_extra_bufts is (is_repacked and machine == "aarch64")
