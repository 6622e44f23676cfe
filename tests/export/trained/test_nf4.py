"""Merging into what NF4 keeps of the base: the same values as training on the 4-bit base saw."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from devices.errors import GateError, UsageError
from export.convert.gguf_writer import convert
from export.pipeline import ExportOptions, export_run
from export.trained.nf4 import as_nf4, is_quantized
from tests.export.conftest import Tiny


@pytest.mark.parametrize("dtype_name", ["float32", "bfloat16"])
def test_it_keeps_what_a_4_bit_model_computes_with(tiny: Tiny, dtype_name: str) -> None:
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = getattr(torch, dtype_name)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    loaded = AutoModelForCausalLM.from_pretrained(tiny.base, dtype=dtype, quantization_config=quantization)
    plain = AutoModelForCausalLM.from_pretrained(tiny.base, dtype="float32").state_dict()
    quantized = {name: weight for name, weight in loaded.named_parameters() if type(weight).__name__ == "Params4bit"}
    assert set(quantized) == {name for name in plain if is_quantized(name)} and len(quantized) == 14
    for name, weight in quantized.items():
        assert torch.equal(as_nf4(plain[name], dtype_name), dequantize_4bit(weight.data, weight.quant_state).float())


def test_merged_into_it_the_file_is_the_model_that_was_trained(tiny: Tiny, tmp_path: Path) -> None:
    gguf = tmp_path / "m.gguf"
    convert(tiny.base, tiny.adapter, gguf, template=tiny.template, name="m", metadata={}, nf4_dtype="float32")
    assert tiny.check(gguf, "float32").mean_kl < 1e-4
    with pytest.raises(GateError, match="gate logits"):  # it is not the adapter on the base as it is
        tiny.check(gguf)


def test_only_a_run_on_an_nf4_base_is_merged_into_it(tiny: Tiny, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny.run, tmp_path / "run"))
    with pytest.raises(UsageError, match="was not trained on an NF4 base"):
        export_run(run, ["Q8_0"], tmp_path / "bundle", options=ExportOptions(merge_base="nf4"))
