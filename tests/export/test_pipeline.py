"""A run becomes a bundle through every gate, and the command line does the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from devices.durable import sha256_of
from devices.errors import GateError, UsageError
from devices.site.site import load_site
from edge_agent.bundle import CURRENT, MODEL, open_bundle
from edge_agent.wire.chat_template import ContractChanged
from export import architectures as layout
from export import cli
from export.pipeline import export_run
from export.trained.run import read_run
from export.trained.samples import read_samples
from tests.export.conftest import Tiny
from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.run, tmp_path / "run"))


def change_run(run: Path, **changes: object) -> None:
    plain = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps(plain | changes), encoding="utf-8")


def test_the_bundle_opens_and_has_the_last_quantization(tiny: Tiny) -> None:
    opened = open_bundle(tiny.bundle)
    opened.require_site(load_site("home"))
    assert opened.manifest.quant == "Q4_K_M"
    assert sorted(path.name for path in tiny.work.iterdir()) == [
        "imatrix.gguf", "model-F16.gguf", "model-Q4_K_M.gguf", "model-Q8_0.gguf"
    ]  # fmt: skip


def test_the_bundle_s_model_answers_in_llama_cpp(tiny: Tiny) -> None:
    from export.llama_cpp_file import LlamaFile

    with LlamaFile(open_bundle(tiny.bundle).model_path, context_tokens=1024) as model:
        assert model.log_probs(model.tokenize(tiny.texts[0]), [0, 7, 9]).shape == (3, 512)


def test_provenance_is_recorded(tiny: Tiny) -> None:
    record = json.loads((tiny.bundle / "export.json").read_text(encoding="utf-8"))
    assert record["base"]["sha256"]["model.safetensors"] == sha256_of(tiny.base / "model.safetensors")
    assert record["adapter"]["sha256"]["adapter_model.safetensors"] == sha256_of(
        tiny.adapter / "adapter_model.safetensors"
    )
    assert record["data"]["sha256"] == "0" * 64
    assert record["recipe"].startswith("schema: recipe/v1")
    assert record["versions"]["gguf"] == "0.19.0"
    assert record["gates"]["logits"]["mean_kl"] == tiny.export["gates"]["logits"]["mean_kl"]
    assert set(record["seconds"]) == {"hash", "convert", "parity", "importance", "F16", "Q8_0", "Q4_K_M"}


def test_a_failed_gate_writes_no_bundle(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "permute", lambda weight, heads: weight)
    with pytest.raises(GateError):
        export_run(tiny.run, ["Q8_0"], tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_run_for_another_contract_is_refused(run: Path) -> None:
    change_run(run, contract="0" * 64)
    with pytest.raises(ContractChanged, match="trained for another contract"):
        read_run(run)


def test_what_a_run_lacks_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.json"):
        read_run(tmp_path)
    change_run(run, base="/nowhere")
    with pytest.raises(UsageError, match="/nowhere is not there"):
        read_run(run)
    change_run(run, base=str(run), template="none")
    with pytest.raises(UsageError, match="no template is called 'none'"):
        read_run(run)
    change_run(run, schema="run/v2")
    with pytest.raises(UsageError, match="schema: Input should be 'run/v1'"):
        read_run(run)
    (run / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="not a run"):
        read_run(run)


def test_a_broken_sample_is_named_with_its_line(run: Path) -> None:
    with (run / "sample.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"messages": [{"role": "user"}]}\n')
    with pytest.raises(UsageError, match=r"sample\.jsonl:4: not a conversation"):
        read_samples(run / "sample.jsonl", read_run(run).template)


def test_a_folder_with_other_things_is_not_overwritten(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(UsageError, match="other things"):
        export_run(tiny.run, ["Q8_0"], tmp_path)


def test_an_older_bundle_is_replaced(tmp_path: Path) -> None:
    first = open_bundle(make_tiny_bundle(tmp_path / "b", fill=1)).manifest
    assert open_bundle(make_tiny_bundle(tmp_path / "b", fill=2)).manifest != first
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def app() -> typer.Typer:
    made = typer.Typer()
    cli.register(made)
    return made


def test_the_command_line_exports_and_flashes(tiny: Tiny, tmp_path: Path) -> None:
    bundle, box = tmp_path / "b", tmp_path / "box"
    done = CliRunner().invoke(
        app(), ["export", str(tiny.run), "--quant", "F16,Q8_0", "--out", str(bundle), "--tasks", "0", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["quant"] == "Q8_0"
    assert (tmp_path / "gguf" / "model-F16.gguf").is_file()

    done = CliRunner().invoke(app(), ["flash", str(bundle), str(box), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert not box.exists()
    done = CliRunner().invoke(app(), ["flash", str(bundle), str(box)])
    assert done.stdout.strip() == (box / CURRENT).resolve().name
    assert (box / CURRENT / MODEL).is_file()
    done = CliRunner().invoke(app(), ["flash", str(tiny.bundle), str(box), "--json"])
    assert json.loads(done.stdout)["previous"] == open_bundle(bundle).manifest.id
    done = CliRunner().invoke(app(), ["flash", "--rollback", str(box)])
    assert done.stdout.strip() == open_bundle(bundle).manifest.id


def test_flash_needs_a_bundle_and_a_target() -> None:
    done = CliRunner().invoke(app(), ["flash", "box"])
    assert isinstance(done.exception, UsageError)
