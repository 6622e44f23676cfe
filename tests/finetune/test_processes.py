"""Two processes train as one does with the same rows a step.

`accelerate launch` starts several processes for GPUs only; it does so with torch's launcher, which is used here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune.recipe import Recipe
from finetune.rows import Row, write_rows
from tests.ports import free_port
from tests.tiny_base import make_tiny_base, tiny_conversations

ROOT = Path(__file__).parents[2]


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


def launch(*arguments: str, processes: int) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(free_port())]
    command = [sys.executable, *launcher, "-m", "edgewright", "train", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_two_processes_have_the_losses_of_one(folder: Path) -> None:
    done = launch(str(recipe_in(folder, "two", accumulate=1)), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [str(folder / "two")]  # said once
    alone = [sys.executable, "-m", "edgewright", "train", str(recipe_in(folder, "one", accumulate=2))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(alone, cwd=ROOT, env=environment, capture_output=True, timeout=300, check=True)
    two, one = run_in(folder, "two"), run_in(folder, "one")
    assert (two["processes"], one["processes"]) == (2, 1)
    assert len(two["losses"]) == 4
    assert dict(two["losses"]) == pytest.approx(dict(one["losses"]), abs=2e-3)
    assert dict(two["held_out_losses"]) == pytest.approx(dict(one["held_out_losses"]), abs=2e-3)
    assert two["data"]["rows"] == 16
    checkpoints = sorted(path.name for path in (folder / "two" / "checkpoints").iterdir() if path.name != "saving")
    assert checkpoints == ["checkpoint-2", "checkpoint-4"]
