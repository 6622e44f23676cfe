"""Own conversations: what a small base does before and after tuning on each example, as Q8_0 and Q4_K_M.

    python benchmarks/own_data.py --out benchmarks/results/own-data.json [refunds travel shop_database]

Each example is trained with finetune/recipes/own_smollm2.yaml, exported and judged on 60 held-out conversations by
`edgewright eval --tools`; time and memory of training stand beside. It takes about an hour and a half on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edge_agent.base_models import base_path
from edge_agent.engine.machine import installed_versions, this_machine

EXAMPLES = {"refunds": "refunds.json", "travel": "travel.jsonl", "shop_database": "shop_database.jsonl"}
HELD_OUT = 60
QUANTS = ("Q8_0", "Q4_K_M")
FOLDER = Path("finetune/examples")


def edgewright(*words: object) -> float:
    """Run a command; return how long it took in seconds."""
    started_s = time.perf_counter()
    subprocess.run([sys.executable, "-m", "edgewright", *map(str, words)], check=True)
    return round(time.perf_counter() - started_s, 1)


def measure(name: str, work: Path) -> dict[str, Any]:
    """Train, export and judge one example; return what came of it."""
    run, tools = work / name, FOLDER / f"{name}.yaml"
    seconds = {}
    if not run.exists():
        changes = (
            f"tools={tools}",
            f"data={FOLDER / EXAMPLES[name]}",
            f"out={run}",
            f"training.held_out_rows={HELD_OUT}",
        )
        seconds["train"] = edgewright("train", "own_smollm2", *changes)
    files = [work / f"{name}-gguf" / f"model-{quant}.gguf" for quant in QUANTS]
    if not all(file.exists() for file in files):
        where = ("--out", work / f"{name}-bundle", "--work", work / f"{name}-gguf")
        seconds["export"] = edgewright("export", run, "--quant", ",".join(QUANTS), *where)
    report = work / f"{name}-report"
    seconds["evaluate"] = edgewright("eval", base_path("smollm2"), run, *files, "--tools", tools, "--out", report)
    judged = json.loads((report / "turns.json").read_text(encoding="utf-8"))
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return {
        "replies": judged["replies"],
        "models": [
            {"label": one["label"]} | {way: {key: one[way][key] for key in ("metrics", "by_tool", "by_argument")}
                                       for way in ("free", "constrained")}
            for one in judged["models"]
        ],
        "training": {"seconds": facts["seconds"], "tokens_per_s": facts["tokens_per_s"], "rows": facts["data"]["rows"]},
        "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    """Measure the examples named, or all, and write the results; those measured before stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*EXAMPLES, []], default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/own-data"))
    given = parser.parse_args()
    found = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    for name in given.names or EXAMPLES:
        found[name] = measure(name, given.work) | {
            "command": f"python benchmarks/own_data.py --out {given.out} {name}",
            "machine": this_machine(),
            "versions": installed_versions(),
        }
        given.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
