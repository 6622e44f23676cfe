"""What a dry run says of a CPU's memory against what training then takes, at the largest batch of the data.

    python -m benchmarks.memory_plan --base FOLDER --data home.jsonl --out benchmarks/results/memory-plan.json

Each case is planned and trained in a process of its own, for one step of the rows whose batch is the largest; the peak
is the most resident memory of that process (VmHWM). FOLDER is a base beside the starter; without it only that is
measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.runs import in_fresh_process, machine_with_gpu, save
from finetune.recipe import load_recipe
from finetune.training.run_folder import tool_versions

OF_STARTER = {"starter": ["base=starter"], "starter, 2,048 tokens": ["base=starter", "training.batch_tokens=2048"]}
CHECKPOINTED = ["training.gradient_checkpointing=true", "training.share_prefix=false"]
OF_BASE = {
    "NF4": ["training.batch_tokens=2048"],
    "NF4, 1,024 tokens": ["training.batch_tokens=1024"],
    "NF4, checkpointed": ["training.batch_tokens=8192", *CHECKPOINTED],
    "float32": ["training.batch_tokens=2048", "quantization=none"],
    "float32, checkpointed": ["training.batch_tokens=8192", "quantization=none", *CHECKPOINTED],
}
ALLOWED = 0.1  # of the peak


def measure(overrides: list[str], folder: str) -> dict[str, Any]:
    """Return the plan of a recipe and the peak of training its largest batch, bytes."""
    from edge_agent.progress import ProgressBar
    from finetune.training import processor, train

    train.keep_freed_memory = lambda is_kept: processor.keep_freed_memory(False)  # as where memory is short

    rows = longest_rows(load_recipe("home", overrides), Path(folder) / "train.jsonl")
    recipe = load_recipe("home", [*overrides, f"data={rows}", f"out={folder}/run", "training.steps=1", "device=cpu"])
    plan = train.dry_run(recipe, ProgressBar(sys.stderr)).plan
    train.train_run(recipe)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return {"plan": plan.memory.total, "peak": peak, "ratio": round(plan.memory.total / peak, 3), **vars(plan.memory)}


def longest_rows(recipe: Any, out: Path) -> Path:
    """Write as many of the data's longest conversations as a batch has."""
    lines = Path(recipe.data).read_text(encoding="utf-8").splitlines(keepends=True)
    out.write_text("".join(sorted(lines, key=len)[-recipe.training.batch_rows :]), encoding="utf-8")
    return out


def main() -> int:
    """Run the command; exit code 5 if a plan is off by more than a tenth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--case", action="append", help="only these")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    cases = dict(OF_STARTER)
    if given.base:
        cases |= {name: [f"base={given.base}", *overrides] for name, overrides in OF_BASE.items()}
    found: dict[str, Any] = {}
    for name, overrides in cases.items():
        if given.case and name not in given.case:
            continue
        with tempfile.TemporaryDirectory() as folder:
            found[name] = in_fresh_process(measure, [*overrides, f"data={given.data}"], folder)
        print(name, found[name], file=sys.stderr, flush=True)
    result = {
        "command": "python -m benchmarks.memory_plan --base SmolLM2-135M-Instruct --data data/home/train.jsonl",
        "machine": machine_with_gpu(),
        "versions": tool_versions(),
        "cases": found,
    }
    save(result, given.out)
    print(json.dumps(found, indent=1))
    return 5 if any(abs(one["ratio"] - 1) > ALLOWED for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
