"""What an export says of itself, and the gates that need more than one file: tasks, the better merge, far positions."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from devices.errors import GateError, UsageError
from devices.site.site import load_site
from edge_agent.bundle import open_bundle
from edge_agent.engine.gguf_header import require_gguf
from edge_agent.evaluation.gate_limits import GateLimits
from edge_agent.evaluation.models.placement import Placement
from export import architectures as layout
from export.bundle.model_card import card_in
from export.bundle.stamp import copy_stamped
from export.convert.gguf_writer import convert
from export.gates.parity import F16Reference, check_beyond
from export.gates.tasks import SiteTasks, check_tasks
from export.llama_cpp_file import LlamaFile
from export.pipeline import ExportOptions, export_run
from export.rope import Rope
from export.trained.reference import Reference
from export.trained.run import gate_limits, read_run
from finetune.data.generator import generate_cases
from finetune.recipe import STARTER_FOLDER
from tests.export.conftest import Tiny
from tests.export.convert.test_classic_failures import LLAMA3
from tests.export.quantize.test_plan import tensors_of
from tests.export.test_pipeline import app
from tests.tiny_base import make_tiny_base, make_tiny_run


def test_a_stamped_copy_has_the_same_tensors(tiny: Tiny, tmp_path: Path) -> None:
    for size in (0, 1, 31, 32, 5000):
        copy_stamped(tiny.f16, tmp_path / "m.gguf", {"edgewright.card": "é" * size, "edgewright.more": "x"})
        header = require_gguf(tmp_path / "m.gguf")
        assert header.metadata["edgewright.card"] == "é" * size
        assert header.metadata["general.name"] == require_gguf(tiny.f16).metadata["general.name"]
        assert tensors_of(tmp_path / "m.gguf") == tensors_of(tiny.f16)
    with LlamaFile(tmp_path / "m.gguf") as model:
        assert model.tokenize("hello")


def test_the_card_is_in_the_bundle_and_in_its_model(tiny: Tiny) -> None:
    card = card_in(tiny.bundle)
    assert card == card_in(open_bundle(tiny.bundle).model_path)
    for words in ("Q4_K_M against F16, call", "F16 file against the trained model", "schema: recipe/v1", "0" * 64):
        assert words in card
    in_model = require_gguf(open_bundle(tiny.bundle).model_path).metadata["edgewright.export"]
    assert json.loads(str(in_model))["base"] == tiny.export["base"]
    with pytest.raises(UsageError, match="has no model card"):
        card_in(tiny.f16)
    done = CliRunner().invoke(app(), ["card", str(tiny.bundle)])
    assert done.stdout == card


def test_a_dry_run_writes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    arguments = ["export", str(tiny.run), "--quant", "Q8_0,Q4_K_M", "--out", str(tmp_path / "b"), "--dry-run"]
    done = CliRunner().invoke(app(), arguments)
    assert done.exit_code == 0, done.output
    assert "blk.1.attn_v.weight" in done.stdout and not list(tmp_path.iterdir())
    plans = json.loads(CliRunner().invoke(app(), [*arguments, "--name", "bundle", "--json"]).stdout)
    assert plans["Q8_0"]["bytes"] == (tiny.work / "model-Q8_0.gguf").stat().st_size
    assert plans["Q4_K_M"]["tensors"]["token_embd.weight"] == "Q6_K"


def test_limits_come_from_the_recipe_and_the_command_line(tiny: Tiny, tmp_path: Path) -> None:
    run = read_run(tiny.run)
    assert gate_limits(run).call_top1 == 0.25 and gate_limits(run).logits_kl == GateLimits().logits_kl
    assert gate_limits(run, ["call_top1=0.75", "quant_kl=2"]).call_top1 == 0.75
    for wrong, message in (
        ("nonsense=1", "unknown key 'nonsense'"),
        ("call_kl=-1", "call_kl"),
        ("call_kl", "NAME=VAL"),
    ):
        with pytest.raises(UsageError, match=message):
            gate_limits(run, [wrong])
    with pytest.raises(GateError, match="gate quantized"):
        export_run(tiny.run, ["Q4_K_M"], tmp_path / "b", options=ExportOptions(gates=["call_kl=1e-6"]))
    assert not (tmp_path / "b").exists()


def test_the_f16_file_goes_when_nobody_asked_for_it(tiny: Tiny, tmp_path: Path) -> None:
    export_run(tiny.run, ["Q8_0"], tmp_path / "b")
    assert [path.name for path in (tmp_path / "gguf").iterdir()] == ["model-Q8_0.gguf"]


def test_the_better_base_is_kept(tiny: Tiny, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny.run, tmp_path / "run"))
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    (run / "recipe.yaml").write_text(recipe + "quantization: nf4\n", encoding="utf-8")
    export = export_run(run, ["Q8_0"], tmp_path / "b", options=ExportOptions(merge_base="better"))
    losses = {kind: found["loss"] for kind, found in export["gates"]["merge_base"].items()}
    assert export["merge_base"] == min(losses, key=lambda kind: losses[kind]) and len(set(losses.values())) == 2
    assert [path.name for path in (tmp_path / "gguf").iterdir()] == ["model-Q8_0.gguf"]


def test_far_positions_are_compared(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_tiny_base(tmp_path / "base", changes={"rope_parameters": LLAMA3})
    run = make_tiny_run(tmp_path / "run", base)
    export = export_run(run, ["Q8_0"], tmp_path / "b")
    assert export["gates"]["beyond_context"]["mean_kl"] < 1e-4
    real = layout.read_shape
    monkeypatch.setattr(layout, "read_shape", lambda config: replace_rope(real(config)))
    convert(base, run / "adapter", tmp_path / "m.gguf", template=tiny.template, name="tiny", metadata={})
    reference, f16_reference = Reference(base, run / "adapter"), F16Reference(tmp_path / "m.gguf", tiny.samples)
    with pytest.raises(GateError, match="gate beyond context: mean KL"):
        check_beyond(reference, tmp_path / "m.gguf", f16_reference, 128, GateLimits())


def replace_rope(shape: Any) -> Any:
    from dataclasses import replace

    return replace(shape, rope=Rope(500000.0))


def test_a_file_that_does_fewer_tasks_is_stopped(tiny: Tiny, tmp_path: Path) -> None:
    """The starter with an adapter that does nothing, and a file into which a random adapter was merged."""
    from safetensors.torch import load_file, save_file

    run = make_tiny_run(tmp_path / "run", STARTER_FOLDER)
    weights = run / "adapter" / "adapter_model.safetensors"
    broken = shutil.copytree(run / "adapter", tmp_path / "broken")
    for file, factor in ((broken / weights.name, 20.0), (weights, 0.0)):
        scaled = {name: tensor * (factor if "lora_B" in name else 1.0) for name, tensor in load_file(weights).items()}
        save_file(scaled, file, metadata={"format": "pt"})
    files = {}
    for name, adapter in (("right", run / "adapter"), ("broken", broken)):
        files[name] = tmp_path / f"{name}.gguf"
        convert(STARTER_FOLDER, adapter, files[name], template=tiny.template, name=name, metadata={})
    cases = list(generate_cases(load_site("home"), 6, 8))
    tasks = SiteTasks(load_site("home"), cases, Placement())
    with pytest.raises(GateError, match="gate tasks") as caught:  # the right one, which comes first, has passed
        check_tasks(tasks, run, STARTER_FOLDER, files, None, tiny.template, GateLimits())
    found = re.search(r"broken does (\d) of 6, the Hugging Face model (\d) ", str(caught.value))
    assert found and int(found[1]) < 3 <= int(found[2])


def test_the_parts_of_a_reply_are_measured_apart(tiny: Tiny) -> None:
    from transformers import AutoTokenizer

    tokenizer, row = AutoTokenizer.from_pretrained(tiny.base), tiny.f16_reference.rows[0]
    words = {"thought": "", "call": "", "answer": ""}
    for place, part in zip(row.positions, row.parts, strict=True):
        words[part] += tokenizer.decode([row.token_ids[place + 1]])
    assert words["call"].startswith("<tool_call>{") and words["call"].endswith("</tool_call><|im_end|>")
    assert words["answer"] == "The kitchen light is on.<|im_end|>" and words["thought"].count("</think>") == 2
