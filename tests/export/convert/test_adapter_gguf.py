"""An adapter's own file, applied to the base's by llama.cpp, is the merged model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from devices.durable import sha256_of
from devices.errors import GateError, UnavailableError, UsageError
from edge_agent.bundle import ADAPTER, open_bundle
from edge_agent.engine.engine import Limits, Request
from edge_agent.engine.llama_cpp_engine import LlamaEngine
from edge_agent.evaluation.gate_limits import GateLimits
from edge_agent.wire.chat_template import ContractChanged
from export import architectures as layout
from export.architectures import Shape, read_shape
from export.convert.adapter_gguf import write_adapter
from export.convert.gguf_writer import convert
from export.flash.flash import flash
from export.gates import parity
from export.llama_cpp_file import LlamaFile
from export.pipeline import ExportOptions, export_run
from tests.export.conftest import Tiny
from tests.tiny_base import make_tiny_run
from tests.tiny_bundle import rewrite_manifest


@pytest.fixture
def shape(tiny: Tiny) -> Shape:
    return read_shape(json.loads((tiny.base / "config.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def plain(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "base.gguf"
    convert(tiny.base, None, path, template=tiny.template, name="base", metadata={})
    return path


@pytest.mark.parametrize("kind", [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3, "mlp.up_proj": 40}}])
def test_applied_to_the_base_it_is_the_merged_model(
    tiny: Tiny, shape: Shape, plain: Path, tmp_path: Path, kind: dict[str, Any]
) -> None:
    adapter = make_tiny_run(tmp_path / "run", tiny.base, **kind) / "adapter"
    convert(tiny.base, adapter, tmp_path / "merged.gguf", template=tiny.template, name="m", metadata={})
    size_bytes = write_adapter(shape, adapter, tmp_path / "adapter.gguf", "tiny", {})
    assert size_bytes < plain.stat().st_size / 2
    f16_reference = parity.F16Reference(tmp_path / "merged.gguf", tiny.samples)
    report = parity.check_adapter(f16_reference, plain, tmp_path / "adapter.gguf", GateLimits())
    assert report.mean_kl < 1e-4


def test_rows_in_another_order_are_stopped(
    tiny: Tiny, shape: Shape, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "permute", lambda weight, heads: weight)
    write_adapter(shape, tiny.adapter, tmp_path / "adapter.gguf", "tiny", {})
    with pytest.raises(GateError, match=r"gate adapter: adapter\.gguf"):
        parity.check_adapter(tiny.f16_reference, plain, tmp_path / "adapter.gguf", GateLimits())


def test_what_cannot_be_applied_is_refused(tiny: Tiny, shape: Shape, plain: Path, tmp_path: Path) -> None:
    dora = make_tiny_run(tmp_path / "dora", tiny.base, use_dora=True) / "adapter"
    with pytest.raises(UsageError, match="is DoRA"):
        write_adapter(shape, dora, tmp_path / "adapter.gguf", "tiny", {})
    other = read_shape({"architectures": ["LlamaForCausalLM"], "hidden_size": 128, "intermediate_size": 512,
                        "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 512, "rms_norm_eps": 1e-5,
                        "max_position_embeddings": 4096})  # fmt: skip
    with pytest.raises(UsageError, match="which this base has in another shape or not at all"):
        write_adapter(other, tiny.adapter, tmp_path / "adapter.gguf", "tiny", {})
    assert not list(tmp_path.glob("*.gguf*"))
    with pytest.raises(UnavailableError, match="cannot apply"):
        LlamaFile(plain, adapter=plain)


@pytest.fixture(scope="module")
def two(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Bundles of two adapters over one base."""
    folder, bundles = tmp_path_factory.mktemp("unmerged"), []
    other = make_tiny_run(folder / "other", tiny.base, use_rslora=True)
    for number, run in enumerate((tiny.run, other)):
        bundle = folder / f"bundle-{number}"
        export = export_run(run, ["Q8_0"], bundle, options=ExportOptions(is_unmerged=True))
        assert export["gates"]["adapter"]["mean_kl"] < 1e-4
        bundles.append(bundle)
    return bundles


def test_an_update_is_the_adapter_alone(two: list[Path], tmp_path: Path) -> None:
    first, second = map(open_bundle, two)
    assert sha256_of(first.model_path) == sha256_of(second.model_path)
    assert first.adapter_path and second.adapter_path
    assert sha256_of(first.adapter_path) != sha256_of(second.adapter_path)
    assert flash(two[0], tmp_path / "box").copied_bytes > first.model_path.stat().st_size
    report = flash(two[1], tmp_path / "box")
    assert report.copied_bytes < second.adapter_path.stat().st_size + 100_000
    assert "model.gguf is there already" in report.steps[0]
    assert open_bundle(tmp_path / "box").manifest == second.manifest


def test_a_damaged_base_on_the_box_is_copied_again(two: list[Path], tmp_path: Path) -> None:
    flash(two[0], tmp_path / "box")
    model = open_bundle(tmp_path / "box").model_path
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    assert flash(two[1], tmp_path / "box").copied_bytes > len(data)
    open_bundle(tmp_path / "box")


def test_the_box_lays_it_over(two: list[Path], tiny: Tiny) -> None:
    bundle = open_bundle(two[0])
    prompts = [tiny.samples[0].prompt[:end] for end in range(40, 400, 20)]

    def next_tokens(adapter: Path | None) -> list[int]:
        requests = [Request(prompt, None, Limits(reply_tokens=1)) for prompt in prompts]
        with LlamaEngine(bundle.model_path, adapter=adapter) as engine:
            return [next(iter(reply.token_ids), -1) for reply in engine.generate(requests)]

    with LlamaFile(bundle.model_path, 2048, bundle.adapter_path) as model:
        expected = [model.reply(model.tokenize(prompt), 1)[0] for prompt in prompts]
    same = sum(one == other for one, other in zip(next_tokens(bundle.adapter_path), expected, strict=True))
    assert same >= len(prompts) - 2  # random weights nearly tie
    assert sum(one == other for one, other in zip(next_tokens(None), expected, strict=True)) < len(prompts) / 2
    with pytest.raises(UsageError, match="cannot apply"):
        LlamaEngine(bundle.model_path, adapter=bundle.model_path)


def test_an_adapter_for_another_contract_is_refused(two: list[Path], tmp_path: Path, shape: Shape, tiny: Tiny) -> None:
    changed = Path(shutil.copytree(two[0], tmp_path / "bundle"))
    write_adapter(shape, tiny.adapter, changed / ADAPTER, "tiny", {"contract": "0" * 64})
    rewrite_manifest(changed)
    with pytest.raises(ContractChanged, match=r"adapter\.gguf was trained for another contract"):
        open_bundle(changed)
