"""Two starter bases against each other: after the same fine-tune on held-out cases and renamed tools, and on new sites.

    python -m benchmarks.compare_bases finetune/starter runs/starter-gpu

Each base is trained with the home recipe on the same data and evaluated on the home's held-out cases, on the same cases
with other names of tools, and, as it is, on sites it was not trained for. The second is the better one if it does no
fewer tasks in any of them and more in all together.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import edgewright
from benchmarks.runs import machine_with_gpu, save
from edge_agent.engine.machine import installed_versions
from edge_agent.evaluation.report import read_report

NEW_SITES = ("greenhouse", "bench_arm", "support", "database")
RENAMED_SEED = "11"


def call(*words: str) -> None:
    """Run an edgewright command. Raises SystemExit if it fails."""
    if code := edgewright.main(list(words)):
        raise SystemExit(f"edgewright {' '.join(words)}: exit code {code}")


def done(folder: Path, *words: str) -> dict[str, Any]:
    """Return how many tasks a model does; words are eval's."""
    call("eval", *words, "--out", str(folder))
    engine = read_report(folder / "report.json")["engines"][-1]
    return {"done": sum(engine["success"].values()), "cases": len(engine["success"])}


def measure(base: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Return a base's figures."""
    run = f"{folder}/run"
    call("train", "home", f"base={base}", f"data={folder.parent}/train.jsonl", f"out={run}", *given.set)
    count, device = str(given.cases), ["--device", given.device]
    home = done(folder / "home", run, "--site", "home", "-n", count, *device)
    renamed = done(folder / "renamed", run, "--site", "home", "-n", count, "--renamed", RENAMED_SEED, *device)
    sites = {site: done(folder / site, base, "--site", site, "-n", count, *device) for site in NEW_SITES}
    return {"home": home, "home, other names": renamed} | sites


def main() -> int:
    """Run the command; exit code 5 if the second base is not the better one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bases", nargs=2)
    parser.add_argument("--rows", type=int, default=11000)
    parser.add_argument("--cases", type=int, default=800)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], help="recipe key=value")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as text:
        call("data", "generate", "--recipe", "home", "-n", str(given.rows), "--out", f"{text}/train.jsonl")
        for number, base in enumerate(given.bases):
            folder = Path(text) / str(number)
            folder.mkdir()
            found[f"{number + 1}: {Path(base).name}"] = measure(base, folder, given)
    first, second = found.values()
    is_better = all(second[key]["done"] >= first[key]["done"] for key in first) and second != first
    result = {
        "command": f"python -m benchmarks.compare_bases FIRST SECOND --rows {given.rows} --cases {given.cases} "
        f"--device {given.device}",
        "machine": machine_with_gpu(),
        "versions": installed_versions(),
        "bases": found,
        "second_is_better": is_better,
    }
    save(result, given.out)
    print(json.dumps(found, indent=1))
    return 0 if is_better else 5


if __name__ == "__main__":
    sys.exit(main())
