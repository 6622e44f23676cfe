"""An adapter's own file, laid over the base's by llama.cpp, is the merged model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devices.errors import GateError, UnavailableError, UsageError
from edge_agent.gate_limits import GateLimits
from export import layout, parity
from export.adapter_file import write_adapter
from export.convert import convert
from export.export import Wishes, export_run
from export.layout import Shape, read_shape
from export.llama_file import LlamaFile
from tests.export.conftest import Tiny
from tests.tiny_base import make_tiny_run


@pytest.fixture
def shape(tiny: Tiny) -> Shape:
    return read_shape(json.loads((tiny.base / "config.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def plain(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "base.gguf"
    convert(tiny.base, None, path, template=tiny.template, name="base", metadata={})
    return path


@pytest.mark.parametrize("kind", [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3, "mlp.up_proj": 40}}])
def test_laid_over_the_base_it_is_the_merged_model(
    tiny: Tiny, shape: Shape, plain: Path, tmp_path: Path, kind: dict[str, Any]
) -> None:
    adapter = make_tiny_run(tmp_path / "run", tiny.base, **kind) / "adapter"
    convert(tiny.base, adapter, tmp_path / "merged.gguf", template=tiny.template, name="m", metadata={})
    size_bytes = write_adapter(shape, adapter, tmp_path / "adapter.gguf", "tiny")
    assert size_bytes < plain.stat().st_size / 2
    yardstick = parity.Yardstick(tmp_path / "merged.gguf", tiny.samples)
    report = parity.check_adapter(yardstick, plain, tmp_path / "adapter.gguf", GateLimits())
    assert report.mean_kl < 1e-4


def test_rows_in_another_order_are_stopped(
    tiny: Tiny, shape: Shape, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "permute", lambda weight, heads: weight)
    write_adapter(shape, tiny.adapter, tmp_path / "adapter.gguf", "tiny")
    with pytest.raises(GateError, match=r"gate adapter: adapter\.gguf"):
        parity.check_adapter(tiny.yardstick, plain, tmp_path / "adapter.gguf", GateLimits())


def test_what_cannot_be_laid_over_is_refused(tiny: Tiny, shape: Shape, plain: Path, tmp_path: Path) -> None:
    dora = make_tiny_run(tmp_path / "dora", tiny.base, use_dora=True) / "adapter"
    with pytest.raises(UsageError, match="is DoRA"):
        write_adapter(shape, dora, tmp_path / "adapter.gguf", "tiny")
    other = read_shape({"architectures": ["LlamaForCausalLM"], "hidden_size": 128, "intermediate_size": 512,
                        "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 512, "rms_norm_eps": 1e-5,
                        "max_position_embeddings": 4096})  # fmt: skip
    with pytest.raises(UsageError, match="which this base has in another shape or not at all"):
        write_adapter(other, tiny.adapter, tmp_path / "adapter.gguf", "tiny")
    assert not list(tmp_path.glob("*.gguf*"))
    with pytest.raises(UnavailableError, match="cannot load"):
        LlamaFile(plain, adapter=plain)


def test_an_export_writes_it_and_says_how_far_off_it_is(tiny: Tiny, tmp_path: Path) -> None:
    wishes = Wishes(adapter_file=tmp_path / "adapter.gguf", merged=tmp_path / "merged")
    export = export_run(tiny.run, ["Q8_0"], tmp_path / "bundle", wishes=wishes)
    assert export["gates"]["adapter"]["mean_kl"] < 1e-4
    assert (tmp_path / "merged" / "model.safetensors").is_file() and (tmp_path / "adapter.gguf").is_file()
