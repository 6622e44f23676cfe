"""Our converter, against the Hugging Face model with the adapter live; and every conversion mistake is stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices.errors import GateError, UsageError
from edge_agent.engine.gguf_header import require_gguf
from export import architectures as layout
from export.convert import lora_merge as lora
from export.convert.gguf_writer import ConvertReport, convert
from export.gates import parity
from export.rope import Rope
from tests.export.conftest import Tiny, check_all
from tests.tiny_base import make_tiny_base, make_tiny_run

# Llama's keys in the base that it is laid over say the rest.
GEMMA3 = {"architectures": ["Gemma3ForCausalLM"], "hidden_act": "gelu_pytorch_tanh", "sliding_window": 64}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}  # fmt: skip


def convert_tiny(tiny: Tiny, out: Path, adapter: bool = True) -> ConvertReport:
    where = tiny.adapter if adapter else None
    return convert(tiny.base, where, out, template=tiny.template, name="tiny", metadata={"contract": "0" * 64})


def test_a_right_conversion_passes_every_gate(tiny: Tiny) -> None:
    measured = tiny.export["gates"]["logits"]
    assert measured["mean_kl"] < 1e-4
    assert measured["top1_agreement"] >= 0.999
    assert measured["top1_agreement_all"] >= 0.97  # random weights nearly tie; the gate itself leaves such ties out
    assert measured["positions"] > 100


def test_the_file_says_what_it_is(tiny: Tiny) -> None:
    header = require_gguf(tiny.f16)
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["tokenizer.ggml.pre"] == "llama-bpe"
    assert header.metadata["tokenizer.ggml.add_bos_token"] is False
    assert "tokenizer.ggml.bos_token_id" not in header.metadata
    assert header.metadata["tokenizer.ggml.eos_token_id"] == header.metadata["tokenizer.ggml.eot_token_id"]
    assert header.metadata["tokenizer.chat_template"] == tiny.template.source
    assert header.metadata["edgewright.contract"] == tiny.export["contract"]
    assert "output.weight" not in header.tensor_types  # tied stays tied


def test_untied_sharded_llama3_rope_and_rslora(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, object] = {"tie_word_embeddings": False, "rope_parameters": LLAMA3}
    base = make_tiny_base(tmp_path / "base", changes=changes, shard="700KB")
    assert len(list(base.glob("*.safetensors"))) > 1
    adapter = make_tiny_run(tmp_path / "run", base, use_rslora=True) / "adapter"

    def measure() -> parity.Distance:
        convert(base, adapter, tmp_path / "m.gguf", template=tiny.template, name="tiny", metadata={})
        return check_all(base, adapter, tiny.template, tmp_path / "m.gguf", tiny.samples)

    measure()
    assert {"output.weight", "rope_freqs.weight"} <= require_gguf(tmp_path / "m.gguf").tensor_types.keys()
    real = layout.read_shape
    monkeypatch.setattr(layout, "read_shape", lambda config: replace(real(config), rope=Rope(500000.0)))
    with pytest.raises(GateError, match="gate logits"):
        measure()


PATTERNS = {"rank_pattern": {"q_proj": 4, r"layers\.1\.mlp.*": 2}, "alpha_pattern": {"mlp.up_proj": 5}}


@pytest.mark.parametrize("kind", [{"use_rslora": True}, {"use_dora": True}, PATTERNS, PATTERNS | {"use_rslora": True}])
def test_an_adapter_is_merged_as_peft_merges_it(tiny: Tiny, tmp_path: Path, kind: dict[str, Any]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = make_tiny_run(tmp_path / "run", tiny.base, **kind) / "adapter"
    plain = AutoModelForCausalLM.from_pretrained(tiny.base, dtype="float32")
    weights = {name: weight.clone() for name, weight in plain.state_dict().items()}
    merged = PeftModel.from_pretrained(plain, folder).merge_and_unload().state_dict()
    adapter = lora.read_adapter(folder)
    for name, weight in weights.items():
        assert adapter.merge_into(name, weight).allclose(merged[name], atol=1e-5), name
    assert not adapter.unused


def test_a_failed_conversion_leaves_no_file(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(weight: Any, heads: int) -> Any:
        raise UsageError("in the middle")

    monkeypatch.setattr(layout, "permute", fail)
    with pytest.raises(UsageError, match="in the middle"):
        convert_tiny(tiny, tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "GemmaForCausalLM is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "scaling 'yarn' is not supported for llama"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "scaling 'longrope' is not supported"),
        ({"architectures": ["Qwen2ForCausalLM"], "rope_parameters": LLAMA3}, "'llama3' is not supported for qwen2"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"num_hidden_layers": 3}, r"lack model\.layers\.2"),
        ({"num_hidden_layers": 1}, r"have model\.layers\.1"),
        ({"intermediate_size": 640}, r"mlp\.gate_proj\.weight is \(512, 256\)"),
        ({"vocab_size": 400}, "no row in the embedding"),
        (GEMMA3 | {"query_pre_attn_scalar": 128}, "query_pre_attn_scalar"),
        (GEMMA3 | {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        (GEMMA3 | {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        (GEMMA3 | {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        (
            GEMMA3 | {"rope_parameters": {"full_attention": {"rope_type": "linear", "rope_theta": 1e6}}},
            "'linear' is not",
        ),
        (GEMMA3 | {"rope_parameters": {"sliding_attention": {"rope_type": "linear"}}}, "with a window"),
        (GEMMA3, r"lack model\.layers\.0\.post_feedforward_layernorm"),
    ],
)
def test_a_base_we_cannot_convert_is_refused_by_name(
    tiny: Tiny, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    base = Path(shutil.copytree(tiny.base, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        convert(base, None, tmp_path / "m.gguf", template=tiny.template, name="tiny", metadata={})
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "lora_A, lora_B of .* says lora_A, lora_B, lora_magnitude"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 4}}, "rank 8, the configuration says 4"),
        ({"bias": "all"}, "bias"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"r": 4}, "rank 8, the configuration says 4"),
    ],
)
def test_an_adapter_we_cannot_merge_is_refused_by_name(
    tiny: Tiny, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    adapter = Path(shutil.copytree(tiny.adapter, tmp_path / "adapter"))
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (adapter / "adapter_config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        lora.read_adapter(adapter)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", "lora_magnitude of"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "lora_embedding_A"),
        ("base_model.model.model.layers.0.self_attn.x_proj.lora_A.weight", "has lora_A of .* says lora_A, lora_B"),
    ],
)
def test_an_adapter_s_unknown_keys_are_named(tiny: Tiny, tmp_path: Path, key: str, message: str) -> None:
    from safetensors.torch import load_file, save_file

    adapter = Path(shutil.copytree(tiny.adapter, tmp_path / "adapter"))
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors[key] = next(iter(tensors.values())).clone()
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(UsageError, match=message):
        lora.read_adapter(adapter)


def test_an_adapter_for_a_tied_output_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = Path(shutil.copytree(tiny.adapter, tmp_path / "adapter"))
    tensors = load_file(adapter / "adapter_model.safetensors")
    low = next(tensor for key, tensor in tensors.items() if key.endswith("q_proj.lora_A.weight"))
    tensors["base_model.model.lm_head.lora_A.weight"] = low.clone()
    tensors["base_model.model.lm_head.lora_B.weight"] = low.new_zeros(512, 8)
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="lm_head, which cannot be merged"):
        convert(tiny.base, adapter, tmp_path / "m.gguf", template=tiny.template, name="tiny", metadata={})


def test_a_value_f16_cannot_hold_is_named(tiny: Tiny, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = Path(shutil.copytree(tiny.base, tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = 70000.0
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"layers\.1\.mlp\.up_proj.*F16"):
        convert(base, None, tmp_path / "m.gguf", template=tiny.template, name="tiny", metadata={})


@pytest.mark.parametrize(
    "form",
    [
        {"_sliding_window_pattern": 6, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3},
        {"sliding_window_pattern": 6, "rope_scaling": None, "rope_local_base_freq": 10000},
        {},
    ],
)
def test_gemma_3_s_configuration_is_read_in_every_form(form: dict[str, Any]) -> None:
    config = {
        "architectures": ["Gemma3ForCausalLM"], "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 640, "intermediate_size": 2048, "max_position_embeddings": 32768, "num_attention_heads": 4,
        "num_hidden_layers": 18, "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "sliding_window": 512, "vocab_size": 262144, "attn_logit_softcapping": None,
    }  # fmt: skip
    shape = layout.read_shape(config | form)
    assert shape.window == layout.Window(512, 6, 10000.0)
    assert shape.rope == Rope(1000000.0) and shape.is_tied and shape.context_tokens == 32768


def test_llama3_factors_are_transformers_own() -> None:
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(hidden_size=256, num_attention_heads=4, head_dim=64, rope_parameters=LLAMA3)
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / 500000.0 ** (torch.arange(0, 64, 2) / 64)
    ours = torch.tensor(
        layout.read_shape(config.to_dict() | {"architectures": ["LlamaForCausalLM"]}).rope.factors["rope_freqs.weight"]
    )
    torch.testing.assert_close(plain / ours, theirs)
