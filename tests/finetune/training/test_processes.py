"""Two processes train as one does with the same rows a step.

`accelerate launch` starts several processes for GPUs only; it does so with torch's launcher, which is used here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from edgewright import main
from finetune.data.rows import Row, write_rows
from finetune.recipe import Recipe
from finetune.training.run_folder import file_sha256
from tests.ports import free_port
from tests.tiny_base import make_tiny_base, tiny_conversations

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    make_tiny_base(folder / "base")
    write_rows(folder / "train.jsonl", [Row(("tiny",), tuple(messages)) for messages in tiny_conversations()] * 6)
    return folder


def recipe_in(folder: Path, name: str, accumulate: int) -> Path:
    plain = {
        "schema": "recipe/v1",
        "base": str(folder / "base"),
        "site": "home",
        "data": str(folder / "train.jsonl"),
        "out": str(folder / name),
        "device": "cpu",
        "compute_dtype": "float32",
        "training": {
            "epochs": 1, "batch_rows": 2, "accumulate": accumulate, "learning_rate": 0.01, "warmup_steps": 0,
            "checkpoint_every": 2, "held_out_rows": 2, "held_out_every": 2,
        },
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(Recipe.model_validate(plain).to_yaml(), encoding="utf-8")
    return path


def run_in(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / name / "run.json").read_text(encoding="utf-8")))


def launch(*arguments: str, program: tuple[str, ...] = ("-m", "edgewright")) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *launcher, *program, "train", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_two_processes_have_the_losses_of_one(folder: Path) -> None:
    done = launch(str(recipe_in(folder, "two", accumulate=1)))
    assert done.stdout.split() == [str(folder / "two")]  # said once
    assert main(["train", str(recipe_in(folder, "one", accumulate=2))]) == 0
    two, one = run_in(folder, "two"), run_in(folder, "one")
    assert_same_losses(two, one)
    assert two["data"]["rows"] == 16
    checkpoints = sorted(path.name for path in (folder / "two" / "checkpoints").iterdir() if path.name != "saving")
    assert checkpoints == ["checkpoint-2", "checkpoint-4"]


@pytest.mark.slow
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_two_processes_that_hold_half_the_weights_each_have_the_losses_of_one(folder: Path) -> None:
    settings = ["training.share_prefix=false", "training.optimizer=adamw"]
    recipe, program = (
        recipe_in(folder, "halves", accumulate=1),
        (str(ROOT / "tests" / "finetune" / "training" / "fsdp_on_cpu.py"),),
    )
    launch(str(recipe), *settings, program=program)
    assert main(["train", str(recipe_in(folder, "whole", accumulate=2)), *settings]) == 0
    halves, whole = run_in(folder, "halves"), run_in(folder, "whole")
    assert_same_losses(halves, whole)
    ours, theirs = (load_file(folder / name / "adapter" / "adapter_model.safetensors") for name in ("halves", "whole"))
    assert ours.keys() == theirs.keys() and all(ours[name].shape == theirs[name].shape for name in ours)

    part = (folder / "halves").rename(folder / "halves.part")  # as if it had been killed after step 2
    shutil.rmtree(part / "checkpoints" / "checkpoint-4")
    (part / "run.json").unlink()
    data = folder / "train.jsonl"
    (part / "data.sha256").write_text(f"{file_sha256(data)}  {data}\n", encoding="utf-8")
    launch(str(recipe), *settings, "--resume", program=program)
    assert run_in(folder, "halves")["losses"] == halves["losses"]


def test_what_would_shard_the_layers_twice_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert main(["train", str(recipe_in(folder, "twice", accumulate=1))]) == 2
    assert "hint: training.share_prefix=false" in capsys.readouterr().err


def assert_same_losses(two: dict[str, Any], one: dict[str, Any]) -> None:
    assert (two["processes"], one["processes"]) == (2, 1)
    assert len(two["losses"]) == 4
    for name in ("losses", "held_out_losses"):
        assert dict(two[name]) == pytest.approx(dict(one[name]), abs=2e-3)
