"""The plan is llama.cpp's own mix, and the file is byte for byte what its own quantizer makes of the F16 file."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices.errors import GateError, UsageError
from edge_agent.engine.gguf_header import require_gguf
from edge_agent.engine.llama_cpp_model import collect_log
from export.architectures import Shape, read_shape
from export.convert.gguf_writer import convert, header_bytes, read_config
from export.quantize.importance_matrix import mean_squares, measure_importance, write_importance
from export.quantize.plan import QUANTS, Quant, parse_overrides, parse_quants, plan, require_plan
from export.trained.reference import Reference
from tests.export.conftest import Tiny
from tests.tiny_base import make_tiny_base

Importance = Mapping[str, Any]  # float32 (in,) by name


def shape_of(base: Path) -> Shape:
    return read_shape(read_config(base))


def quantize_with_llama_cpp(f16: Path, out: Path, quant: Quant, importance: Importance | None = None) -> None:
    """What llama.cpp's own tool does."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{quant}")
    if importance:
        entries = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
        for entry, (name, values) in zip(entries, importance.items(), strict=False):
            entry.name, entry.size = name.encode(), values.size
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        parameters.imatrix = entries
    collect_log()
    code = llama_cpp.llama_model_quantize(str(f16).encode(), str(out).encode(), ctypes.byref(parameters))
    assert code == 0


def tensors_of(path: Path) -> dict[str, tuple[str, bytes]]:
    from gguf import GGUFReader

    return {one.name: (one.tensor_type.name, one.data.tobytes()) for one in GGUFReader(path).tensors}


@pytest.fixture(scope="module")
def importance(tiny: Tiny) -> Importance:
    reference = Reference(tiny.base, tiny.adapter)
    return mean_squares(*measure_importance(reference, shape_of(tiny.base), tiny.f16, tiny.samples))


@pytest.mark.parametrize("quant", QUANTS[1:])
@pytest.mark.parametrize("weighs", [False, True])
def test_it_is_byte_for_byte_llama_cpp_s(
    tiny: Tiny, tmp_path: Path, importance: Importance, quant: Quant, weighs: bool
) -> None:
    given = importance if weighs else {}
    planned = plan(shape_of(tiny.base), quant, has_importance=weighs)
    made = convert(
        tiny.base, tiny.adapter, tmp_path / "ours.gguf", template=tiny.template, name="tiny", metadata={},
        planned=planned, importance=given,
    )  # fmt: skip
    quantize_with_llama_cpp(tiny.f16, tmp_path / "theirs.gguf", quant, given)
    assert tensors_of(made.path) == tensors_of(tmp_path / "theirs.gguf")
    names = require_gguf(made.path).metadata
    assert names["general.file_type"] == require_gguf(tmp_path / "theirs.gguf").metadata["general.file_type"]


FORMS: dict[str, dict[str, object]] = {
    "untied, many layers, 4 heads on 1": {"num_hidden_layers": 17, "num_key_value_heads": 1,
                                          "tie_word_embeddings": False},
    "tied, rows of 192": {"hidden_size": 192, "num_attention_heads": 3, "num_key_value_heads": 1},
    "untied, rows of 80": {"hidden_size": 80, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                           "tie_word_embeddings": False},
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [pytest.param(changes, id=name, marks=[pytest.mark.slow] * ("many" in name)) for name, changes in FORMS.items()],
)
def test_the_mix_is_llama_cpp_s(tiny: Tiny, tmp_path: Path, changes: dict[str, object]) -> None:
    base = make_tiny_base(tmp_path / "base", layers=int(str(changes.get("num_hidden_layers", 8))), changes=changes)
    shape, f16 = shape_of(base), tmp_path / "f16.gguf"
    convert(base, None, f16, template=tiny.template, name="tiny", metadata={})
    import numpy

    ones = {
        one.name: numpy.ones(one.shape[1], numpy.float32)
        for one in plan(shape, "F16").tensors
        if one.name.startswith("blk.") and len(one.shape) == 2
    }
    for quant in QUANTS[1:]:
        for given in ({}, ones):
            quantize_with_llama_cpp(f16, tmp_path / "theirs.gguf", quant, given)
            require_plan(tmp_path / "theirs.gguf", plan(shape, quant, has_importance=bool(given)))


def test_what_does_not_fit_a_type_is_said(tiny: Tiny) -> None:
    shape = replace(shape_of(tiny.base), hidden=192)
    planned = plan(shape, "Q4_K_M")
    assert any(line.endswith("tensors are Q5_0, not Q4_K: rows of 192 weights") for line in planned.exceptions)
    assert not plan(shape, "Q8_0").exceptions


def test_a_type_that_llama_cpp_changed_in_silence_is_stopped(tiny: Tiny, tmp_path: Path) -> None:
    changes: dict[str, object] = {"hidden_size": 192, "num_attention_heads": 3, "num_key_value_heads": 1}
    base = make_tiny_base(tmp_path / "base", layers=1, changes=changes)
    f16 = tmp_path / "f16.gguf"
    convert(base, None, f16, template=tiny.template, name="tiny", metadata={})
    quantize_with_llama_cpp(f16, tmp_path / "q4.gguf", "Q4_K_M")
    asked = plan(shape_of(base), "Q4_K_M")
    wanted = replace(asked, tensors=tuple(replace(one, type="Q4_K") for one in asked.tensors if len(one.shape) == 2))
    with pytest.raises(GateError, match=r"gate plan: q4.gguf: tensor .* is Q\S+, the plan says Q4_K"):
        require_plan(tmp_path / "q4.gguf", wanted)


def test_tensors_can_have_types_of_their_own(tiny: Tiny, tmp_path: Path) -> None:
    overrides = parse_overrides(["blk.*.attn_v.weight=q8_0", "token_embd.weight=F16"])
    planned = plan(shape_of(tiny.base), "Q4_K_M", overrides)
    made = convert(tiny.base, tiny.adapter, tmp_path / "m.gguf", template=tiny.template, name="m", metadata={},
                   planned=planned)  # fmt: skip
    types = require_gguf(made.path).tensor_types
    assert types["blk.1.attn_v.weight"] == "Q8_0" and types["token_embd.weight"] == "F16"
    assert types["blk.0.attn_k.weight"] == "Q4_K" and made.types["Q8_0"] == 2
    for wrong, message in (
        (["blk.*.attn_v.weight"], "not PATTERN=TYPE"), (["blk.*=Q9"], "not PATTERN=TYPE"),
        (["blk.9.attn_v.weight=Q8_0"], "fits no weight matrix"), (["*_norm.weight=Q8_0"], "fits no weight matrix"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            plan(shape_of(tiny.base), "Q4_K_M", parse_overrides(wrong))
    with pytest.raises(UsageError, match="cannot be Q4_K: its rows of 192"):
        plan(replace(shape_of(tiny.base), hidden=192), "Q8_0", {"*.attn_q.weight": "Q4_K"})


@pytest.mark.parametrize("quant", QUANTS)
def test_the_size_is_known_beforehand(tiny: Tiny, tmp_path: Path, quant: Quant) -> None:
    planned = plan(shape_of(tiny.base), quant)
    given: dict[str, Any] = {"template": tiny.template, "name": "tiny", "metadata": {"contract": "0" * 64}}
    made = convert(tiny.base, tiny.adapter, tmp_path / "m.gguf", planned=planned, **given)
    assert made.size_bytes == planned.data_bytes + header_bytes(tiny.base, planned, **given)


def test_sizes_are_those_of_published_files() -> None:
    from tests.export.quantize.test_targets import LLAMA_8B

    assert plan(LLAMA_8B, "Q4_K_M").data_bytes == pytest.approx(4.92e9, rel=0.003)
    assert plan(LLAMA_8B, "Q8_0").data_bytes == pytest.approx(8.54e9, rel=0.003)


def test_fewer_bits_are_smaller_and_further_off(tiny: Tiny, tmp_path: Path) -> None:
    f16_reference, shape, sizes, distances = tiny.f16_reference, shape_of(tiny.base), [], []
    for quant in QUANTS[1:]:
        made = convert(tiny.base, tiny.adapter, tmp_path / f"{quant}.gguf", template=tiny.template, name="tiny",
                       metadata={}, planned=plan(shape, quant))  # fmt: skip
        sizes.append(made.size_bytes)
        distances.append(f16_reference.distance(made.path)[None].mean_kl)
    assert sizes == sorted(sizes, reverse=True)
    assert distances[:4] == sorted(distances[:4]) and max(distances[4:]) > distances[3]  # the last three are close


def test_memory_is_of_some_rows(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from export.convert import gguf_writer as converting

    seen: list[int] = []
    real = converting.base_weight
    monkeypatch.setattr(converting, "BLOCK_WEIGHTS", 2**12)
    monkeypatch.setattr(converting, "base_weight", lambda *given: (seen.append(given[1].numel()), real(*given))[1])
    convert(tiny.base, tiny.adapter, tmp_path / "m.gguf", template=tiny.template, name="tiny",
            metadata=require_metadata(tiny))  # fmt: skip
    assert tensors_of(tmp_path / "m.gguf") == tensors_of(tiny.f16)
    assert seen.count(2**12) == 512 * 256 // 2**12  # the embedding; projections are merged whole


def require_metadata(tiny: Tiny) -> dict[str, str]:
    return {"contract": tiny.export["contract"]}


def test_the_importance_matrix_is_the_mean_square_of_each_input(tiny: Tiny, importance: Importance) -> None:
    import numpy
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain = AutoModelForCausalLM.from_pretrained(tiny.base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(plain, tiny.adapter).merge_and_unload().eval()
    tokenizer, seen = AutoTokenizer.from_pretrained(tiny.base), []
    layer = merged.model.layers[1].mlp.down_proj
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0][0].detach()))
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in tiny.texts]
    with torch.inference_mode():
        for row in rows:
            merged(input_ids=torch.tensor([row]))
    shared = next(place for place, tokens in enumerate(zip(*rows, strict=False)) if len(set(tokens)) > 1)
    counted = torch.cat([seen[0], *(one[shared:] for one in seen[1:])])
    numpy.testing.assert_allclose(
        importance["blk.1.ffn_down.weight"], counted.square().mean(dim=0).numpy(), rtol=1e-3, atol=1e-7
    )
    assert len(importance) == 14 and importance["blk.0.attn_q.weight"].shape == (256,)


def test_its_file_is_llama_cpp_s(tiny: Tiny, importance: Importance, tmp_path: Path) -> None:
    import numpy
    from gguf import GGUFReader

    sums = {name: means * numpy.float32(1000) for name, means in importance.items()}
    write_importance(tmp_path / "imatrix.gguf", sums, 1000, "train.jsonl")
    reader = GGUFReader(tmp_path / "imatrix.gguf")
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["train.jsonl"]
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    name = "blk.0.attn_k.weight"
    means = tensors[f"{name}.in_sum2"][0] / tensors[f"{name}.counts"][0, 0]
    assert (means == mean_squares(sums, 1000)[name]).all()
    assert len(tensors) == 2 * len(importance)


def test_quants_are_parsed() -> None:
    assert parse_quants(["F16,q8_0", "iq4_xs", "F16"]) == ["F16", "Q8_0", "IQ4_XS"]
    for wrong in (["Q3"], [""]):
        with pytest.raises(UsageError):
            parse_quants(wrong)
