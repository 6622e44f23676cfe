"""Everything that benchmarks/gpu_all.sh does on a GPU, done small on this machine's CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vocabularies import Find

ROOT = Path(__file__).parents[1]
NOT_BETTER = 5  # the small starter


@pytest.mark.slow
def test_every_part_runs_small(tmp_path: Path, vocabularies: Find) -> None:
    environment = os.environ | {"SMALL": "1", "WORK": str(tmp_path / "work"), "PYTHON": sys.executable}
    command = ["sh", str(ROOT / "benchmarks" / "gpu_all.sh"), str(vocabularies("made")), str(tmp_path / "results")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in {0, NOT_BETTER}, done.stderr[-2000:]
    failures = [line for line in done.stdout.splitlines() if line.startswith("== exit code")]
    assert not [line for line in failures if "compare_bases" not in line], failures
    results = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "results").iterdir()}
    assert set(results) == {
        "gpu-demo.json", "gpu-placements.json", "gpu-train-tiny.json", "gpu-train-tiny-phi-3.json",
        "gpu-export-tiny.json", "gpu-export-tiny-phi-3.json", "gpu-starter.json", "gpu-compare-bases.json",
    }  # fmt: skip
    variants = results["gpu-train-tiny.json"]["shapes"]["tiny"]["variants"]
    assert len(variants) >= 6 and all(one["tokens_per_s"] > 0 for one in variants.values()), variants
    assert results["gpu-placements.json"]["agreement"]["Hugging Face, CPU"]["F16, CPU"] > 0.5
