"""Compiled layers: the same losses and gradients, and one clear line where nothing can be compiled."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from devices.errors import UnavailableError
from finetune.training.compiled_layers import compile_layers, require_compiler
from tests.finetune.training.test_parts import assert_same, batch_of, loss_and_gradients
from tests.tiny_base import make_tiny_base

HAS_COMPILER = bool(shutil.which("g++")) and (Path(sysconfig.get_path("include")) / "Python.h").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="needs g++ and Python's headers")
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
def test_losses_and_gradients_are_the_same(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path)
    batches = [batch_of((90, 70, 80, 64), shared=40), batch_of((60, 50), shared=35)]
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    wanted = [loss_and_gradients(plain, [batch], share=True) for batch in batches]
    compile_layers(plain)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for batch, found in zip(batches, wanted, strict=True):
        assert_same(found, loss_and_gradients(plain, [batch], share=True))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before


def test_without_a_compiler_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(UnavailableError, match=r"C\+\+ compiler") as found:
        require_compiler()
    assert "training.is_compiled=false" in found.value.hint


def test_without_the_headers_of_python_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "g++")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(UnavailableError, match="Python's headers"):
        require_compiler()
