"""Fifteen ways in which a fine-tune is lost in silence: each is built here, and a gate stops it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices.errors import GateError, UnavailableError, UsageError
from devices.site.site import load_site
from edge_agent.bundle import open_bundle
from edge_agent.evaluation.gate_limits import GateLimits
from edge_agent.wire import contract
from edge_agent.wire.chat_template import ChatTemplate, ContractChanged, load_template
from export import architectures as layout
from export.architectures import Shape
from export.convert import gguf_writer as converting
from export.convert import lora_merge as lora
from export.convert.gguf_writer import convert
from export.convert.tokenizer import Vocabulary, read_vocabulary
from export.gates import parity
from export.llama_cpp_file import LlamaFile
from export.pipeline import ExportOptions, export_run
from export.quantize.plan import plan
from export.rope import Rope
from export.trained.nf4 import as_nf4
from export.trained.run import read_run
from export.trained.samples import read_samples, sample_of
from finetune.data.generator import generate_rows
from finetune.recipe import STARTER_FOLDER
from tests.export.conftest import Tiny, check_all
from tests.tiny_base import make_tiny_base, make_tiny_run, spread_weights
from tests.vocabularies import VARIABLE, published_folder

Patch = pytest.MonkeyPatch


def convert_tiny(tiny: Tiny, out: Path, template: ChatTemplate | None = None) -> Path:
    convert(tiny.base, tiny.adapter, out, template=template or tiny.template, name="tiny", metadata={})
    return out


def with_vocabulary(monkeypatch: Patch, **changes: Any) -> None:
    """Convert with a vocabulary that differs from the right one."""
    real = read_vocabulary
    monkeypatch.setattr(converting, "read_vocabulary", lambda *rest: replace(real(*rest), **changes))


def with_shape(monkeypatch: Patch, change: Callable[[Shape], Shape]) -> None:
    """Convert with hyperparameters that differ from the right ones."""
    real = layout.read_shape
    monkeypatch.setattr(layout, "read_shape", lambda config: change(real(config)))


def test_01_another_template(tiny: Tiny, tmp_path: Path) -> None:
    altered = replace(tiny.template, source=tiny.template.source + " ")
    with pytest.raises(GateError, match="gate template"):
        tiny.check(convert_tiny(tiny, tmp_path / "m.gguf", altered))


def test_02_a_template_that_drops_the_thought(tiny: Tiny, tmp_path: Path) -> None:
    content, without = "message['content']", "message['content'].split('</think>')[-1]"
    dropping = replace(tiny.template, source=tiny.template.source.replace(content, without))
    convert_tiny(tiny, tmp_path / "m.gguf", dropping)
    with pytest.raises(GateError, match="drops or changes what stands in a turn of assistant"):
        parity.check_texts(tiny.base, dropping, tmp_path / "m.gguf", tiny.samples)


LOOP = "for message in messages"
LIKE_FAMILIES = {
    "knows two roles": (LOOP, f"{LOOP} if message['role'] in ['user', 'assistant']"),  # as Phi-3.5's
    "refuses a role": ("message['role'] }}", "raise_exception('roles must alternate') }}"),  # as Mistral's
    "shortens": ("message['content'] }}", "message['content'][:40] }}"),
}


@pytest.mark.parametrize("change", LIKE_FAMILIES.values(), ids=LIKE_FAMILIES)
def test_02_templates_like_families_own(tiny: Tiny, tmp_path: Path, change: tuple[str, str]) -> None:
    assert change[0] in tiny.template.source
    other = replace(tiny.template, source=tiny.template.source.replace(*change))
    convert_tiny(tiny, tmp_path / "m.gguf", other)
    with pytest.raises(GateError, match="gate template"):
        parity.check_texts(tiny.base, other, tmp_path / "m.gguf", tiny.samples)


@pytest.mark.parametrize("name", ["meta-llama-Llama-3.2-3B-Instruct", "microsoft-Phi-3.5-mini-instruct",
                                  "mistralai-Mistral-Nemo-Instruct-2407"])  # fmt: skip
def test_02_families_own_templates_drop_something_too(tiny: Tiny, tmp_path: Path, name: str) -> None:
    places = [published_folder() / "templates", published_folder().parent / "chat_templates"]  # llama.cpp's, or beside
    file = next((place / f"{name}.jinja" for place in places if (place / f"{name}.jinja").is_file()), None)
    if not file:
        pytest.skip(f"no {name}.jinja: {VARIABLE} may name the folder models/ of llama.cpp's sources")
    stock = replace(tiny.template, source=file.read_text(encoding="utf-8"))
    convert_tiny(tiny, tmp_path / "m.gguf", stock)
    with pytest.raises(GateError, match="gate template"):
        parity.check_texts(tiny.base, stock, tmp_path / "m.gguf", tiny.samples)


def test_03_an_unmapped_role(tiny: Tiny, tmp_path: Path) -> None:
    for role in ("human", "gpt"):
        line = {"messages": [{"role": role, "text": "turn on the light"}]}
        (tmp_path / "sample.jsonl").write_text(json.dumps(line), encoding="utf-8")
        with pytest.raises(UsageError, match=rf"sample.jsonl:1: .*unknown role '{role}'"):
            read_samples(tmp_path / "sample.jsonl", tiny.template)


def test_04_a_second_bos(tiny: Tiny, tmp_path: Path, monkeypatch: Patch) -> None:
    import gguf

    real = gguf.GGUFWriter.add_add_bos_token
    monkeypatch.setattr(gguf.GGUFWriter, "add_add_bos_token", lambda writer, value: real(writer, True))
    with_vocabulary(monkeypatch, bos=3)
    with pytest.raises(GateError, match=r"gate tokens: .* has a BOS token put before texts"):
        tiny.check(convert_tiny(tiny, tmp_path / "m.gguf"))


def test_05_a_stop_token_that_was_not_learnt(tiny: Tiny, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(parity, "REPLY_TOKENS", 2)
    with pytest.raises(GateError, match=r"gate endings: model-Q8_0.gguf: 0 of 3 replies end with <\|im_end\|>"):
        export_run(tiny.run, ["Q8_0"], tmp_path / "bundle", options=ExportOptions(gates=["endings=0.5"]))
    assert not (tmp_path / "bundle").exists()


def test_06_a_stop_token_that_ends_nothing(tiny: Tiny, tmp_path: Path, monkeypatch: Patch) -> None:
    import gguf
    from transformers import AutoTokenizer

    monkeypatch.setattr(gguf.GGUFWriter, "add_eos_token_id", lambda *_: None)
    monkeypatch.setattr(gguf.GGUFWriter, "add_eot_token_id", lambda *_: None)
    vocabulary = read_vocabulary(tiny.base, 512, "<|im_end|>")
    # llama.cpp takes a few well-known texts for ends of generation by itself
    template = replace(tiny.template, end_of_turn="<think>")
    with_vocabulary(monkeypatch, types=tuple(4 if one == 3 else one for one in vocabulary.types))
    convert_tiny(tiny, tmp_path / "m.gguf", template)
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    with LlamaFile(tmp_path / "m.gguf") as model, pytest.raises(GateError, match="gate end of turn"):
        parity.check_end_of_turn(model, tokenizer, template)


def test_07_vocabulary_padding(tiny: Tiny, tmp_path: Path, monkeypatch: Patch) -> None:
    base = make_tiny_base(tmp_path / "base", changes={"vocab_size": 576})  # 64 rows more than there are tokens
    run = make_tiny_run(tmp_path / "run", base)
    right = tmp_path / "right.gguf"
    convert(base, run / "adapter", right, template=tiny.template, name="tiny", metadata={})
    check_all(base, run / "adapter", tiny.template, right, tiny.samples)
    vocabulary = read_vocabulary(base, 576, "<|im_end|>")
    with_vocabulary(monkeypatch, tokens=vocabulary.tokens[:512], types=vocabulary.types[:512])
    convert(base, run / "adapter", tmp_path / "m.gguf", template=tiny.template, name="tiny", metadata={})
    with pytest.raises(UnavailableError, match="cannot load"):
        check_all(base, run / "adapter", tiny.template, tmp_path / "m.gguf", tiny.samples)


def test_08_embeddings_tied_that_are_not(tiny: Tiny, tmp_path: Path, monkeypatch: Patch) -> None:
    base = make_tiny_base(tmp_path / "base", changes={"tie_word_embeddings": False})
    with_shape(monkeypatch, lambda shape: replace(shape, is_tied=True))
    convert(base, None, tmp_path / "m.gguf", template=tiny.template, name="tiny", metadata={})
    with pytest.raises(GateError, match="gate logits"):
        check_all(base, None, tiny.template, tmp_path / "m.gguf", tiny.samples)


def test_08_embeddings_untied_that_are_tied(tiny: Tiny, tmp_path: Path, monkeypatch: Patch) -> None:
    with_shape(monkeypatch, lambda shape: replace(shape, is_tied=False))
    with pytest.raises(UsageError, match=r"the weights lack lm_head\.weight"):
        convert_tiny(tiny, tmp_path / "m.gguf")


class MergedIn4Bit(lora.Adapter):
    def merge_into(self, weight_name: str, weight: Any) -> Any:
        merged = super().merge_into(weight_name, weight)
        return as_nf4(merged, "bfloat16") if weight_name.endswith("_proj.weight") else merged


def with_adapter(monkeypatch: Patch, change: Callable[[lora.Adapter], lora.Adapter]) -> None:
    monkeypatch.setattr(converting, "read_adapter", lambda folder: change(lora.read_adapter(folder)))


def scaled(factor: float) -> Callable[[lora.Adapter], lora.Adapter]:
    return lambda adapter: replace(adapter, scales={name: scale * factor for name, scale in adapter.scales.items()})


@pytest.mark.parametrize(
    "change",
    [
        lambda adapter: MergedIn4Bit(adapter.scales, adapter.sides, adapter.unused),
        scaled(8**0.5),
        scaled(1.1),
        scaled(0.0),
    ],
    ids=["merged into 4 bits", "rank-stabilized", "10 % too much", "left out"],
)
def test_09_a_wrong_merge(tiny: Tiny, tmp_path: Path, monkeypatch: Patch, change: Any) -> None:
    with_adapter(monkeypatch, change)
    with pytest.raises(GateError, match="gate logits: mean KL"):
        tiny.check(convert_tiny(tiny, tmp_path / "m.gguf"))


def test_10_rows_that_are_not_permuted(tiny: Tiny, tmp_path: Path, monkeypatch: Patch) -> None:
    real = layout.permute
    for wrong in (lambda weight, heads: weight, lambda weight, heads: real(weight, 4)):  # the second: as queries' heads
        monkeypatch.setattr(layout, "permute", wrong)
        with pytest.raises(GateError, match="gate logits: mean KL"):
            tiny.check(convert_tiny(tiny, tmp_path / "m.gguf"))


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}  # fmt: skip


def test_10_missing_factors_of_positions(tiny: Tiny, tmp_path: Path, monkeypatch: Patch) -> None:
    base = make_tiny_base(tmp_path / "base", changes={"rope_parameters": LLAMA3})
    for rope in (Rope(500000.0), Rope(20000.0)):
        with_shape(monkeypatch, lambda shape, rope=rope: replace(shape, rope=rope))  # type: ignore[misc]
        convert(base, None, tmp_path / "m.gguf", template=tiny.template, name="tiny", metadata={})
        with pytest.raises(GateError, match="gate logits"):
            check_all(base, None, tiny.template, tmp_path / "m.gguf", tiny.samples)


def make_tiny_phi3(tiny: Tiny, folder: Path) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.Phi3Config(
        hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=4096, vocab_size=512, pad_token_id=None, sliding_window=None,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    spread_weights(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny.base / name, folder / name)
    return folder


def test_11_fused_projections_in_another_order(tiny: Tiny, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    base = make_tiny_phi3(tiny, tmp_path / "base")
    convert(base, None, tmp_path / "right.gguf", template=tiny.template, name="tiny", metadata={})
    check_all(base, None, tiny.template, tmp_path / "right.gguf", tiny.samples)
    for key, order in (("mlp.gate_up_proj", (1, 0)), ("self_attn.qkv_proj", (0, 2, 1))):
        sizes = {"mlp.gate_up_proj": [512, 512], "self_attn.qkv_proj": [256, 128, 128]}[key]
        other = Path(shutil.copytree(base, tmp_path / key))
        weights = load_file(base / "model.safetensors")
        for name in [name for name in weights if key in name]:
            parts = weights[name].split(sizes)
            weights[name] = torch.cat([parts[place] for place in order])
        save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
        convert(other, None, tmp_path / "m.gguf", template=tiny.template, name="tiny", metadata={})
        with pytest.raises(GateError, match="gate logits"):
            check_all(base, None, tiny.template, tmp_path / "m.gguf", tiny.samples)


def test_12_another_pre_tokenizer(tiny: Tiny, tmp_path: Path, monkeypatch: Patch) -> None:
    with_vocabulary(monkeypatch, pre="gpt-2")
    with pytest.raises(GateError, match="gate tokens"):
        tiny.check(convert_tiny(tiny, tmp_path / "m.gguf"))


@pytest.mark.parametrize("change", ["merges", "types"])
def test_12_another_vocabulary(tiny: Tiny, tmp_path: Path, monkeypatch: Patch, change: str) -> None:
    vocabulary: Vocabulary = read_vocabulary(tiny.base, 512, "<|im_end|>")
    wrong = {"merges": vocabulary.merges[:-1], "types": (1,) * 512}[change]
    with_vocabulary(monkeypatch, **{change: wrong})
    with pytest.raises(GateError, match="gate tokens"):
        tiny.check(convert_tiny(tiny, tmp_path / "m.gguf"))


def test_13_a_type_that_was_not_asked_for(tiny: Tiny, tmp_path: Path, monkeypatch: Patch) -> None:
    """As llama.cpp's own quantizer does it (test_quantize): a tensor has another type than the plan says."""
    from edge_agent.engine.gguf_header import require_gguf

    planned = plan(layout.read_shape(converting.read_config(tiny.base)), "Q4_K_M")
    real = require_gguf

    def other(path: Path) -> Any:
        header = real(path)
        return replace(header, tensor_types=header.tensor_types | {"blk.1.attn_q.weight": "Q5_0"})

    monkeypatch.setattr("export.quantize.plan.require_gguf", other)
    with pytest.raises(GateError, match=r"gate plan: .* blk\.1\.attn_q\.weight is Q5_0, the plan says Q4_K"):
        convert(tiny.base, tiny.adapter, tmp_path / "m.gguf", template=tiny.template, name="tiny", metadata={},
                planned=planned)  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_14_damage_to_arguments(tmp_path: Path, monkeypatch: Patch) -> None:
    """Rows of tokens that stand in calls only are lost: little of the mean over all, enough for a wrong argument."""
    template = load_template("chatml")
    rows = list(generate_rows(load_site("home"), 12, 5))
    samples = [sample_of(template, row.messages) for row in rows if any(turn.calls for turn in row.messages)][:8]
    f16, limits = tmp_path / "f16.gguf", GateLimits()
    convert(STARTER_FOLDER, None, f16, template=template, name="starter", metadata={})
    f16_reference = parity.F16Reference(f16, samples)
    elsewhere, in_calls = set[int](), set[int]()
    for row in f16_reference.rows:
        scored = dict(zip(row.positions, row.parts, strict=True))
        for place, token in enumerate(row.token_ids):
            (in_calls if scored.get(place - 1) == "call" else elsewhere).add(token)
    lost = sorted(in_calls - elsewhere)
    assert len(lost) >= 3
    real = converting.quantize

    def damage(rows: Any, *rest: Any) -> Any:
        if rows.shape[0] == 2304:  # the embedding, which is the output too
            rows = rows.copy()
            rows[lost] *= 0.4
        return real(rows, *rest)

    planned = plan(layout.read_shape(converting.read_config(STARTER_FOLDER)), "Q8_0")
    for name, quantizer in (("right", real), ("damaged", damage)):
        monkeypatch.setattr(converting, "quantize", quantizer)
        convert(STARTER_FOLDER, None, tmp_path / f"{name}.gguf", template=template, name="starter", metadata={},
                planned=planned)  # fmt: skip
    parity.check_quantized(f16_reference, tmp_path / "right.gguf", limits)
    found = f16_reference.distance(tmp_path / "damaged.gguf")
    assert found[None].mean_kl < limits.quant_kl < 10 * found["call"].mean_kl
    with pytest.raises(GateError, match=r"gate quantized: damaged.gguf: mean KL .* nats on calls"):
        parity.check_quantized(f16_reference, tmp_path / "damaged.gguf", limits)
    with pytest.raises(GateError, match="first choices on calls agree"):
        parity.check_quantized(f16_reference, tmp_path / "damaged.gguf", GateLimits(call_kl=99.0))


def test_15_drift_of_versions(tiny: Tiny, monkeypatch: Patch) -> None:
    """What another version would say to the model is not what it was trained with, at export and on the box."""
    read_run(tiny.run), open_bundle(tiny.bundle)
    monkeypatch.setattr(contract, "WIRE_FORMAT", "wire/5")
    with pytest.raises(ContractChanged, match="trained for another contract"):
        read_run(tiny.run)
    with pytest.raises(ContractChanged, match="trained for another contract"):
        open_bundle(tiny.bundle)
