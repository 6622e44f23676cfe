"""One fine-tune wherever it can run, on the same held-out cases: what each does, how quickly, and where they disagree.

    python -m benchmarks.placements runs/demo/run runs/demo/gguf/model-Q4_K_M.gguf --cases runs/demo/cases.jsonl

Hugging Face on a GPU in 16 bits and in NF4 and on the CPU, GGUF files on the CPU and, if llama.cpp was compiled for
one, on a GPU. Two places agree on a case if they carried out the same commands with the same result and stopped alike.
What this machine lacks is left out, and the result says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.runs import gpu_name, machine_with_gpu, save
from devices.site.site import load_site
from edge_agent.engine.machine import installed_versions
from edge_agent.evaluation.cases import read_cases
from edge_agent.evaluation.evaluation import CaseOutcome
from edge_agent.evaluation.models.grading import grade
from edge_agent.evaluation.models.model import find_model
from edge_agent.evaluation.models.placement import Placement
from edge_agent.evaluation.report import EngineRun, Provenance, build_report, terminal_table

RUN_PLACES = {
    "Hugging Face, GPU, 16 bits": Placement("cuda"),
    "Hugging Face, GPU, NF4": Placement("cuda", load_in_4bit=True),
    "Hugging Face, CPU": Placement(),
}
FILE_PLACES = {"CPU": Placement(), "GPU": Placement(gpu_layers=-1)}


def places(models: list[str]) -> tuple[list[tuple[str, str, Placement]], list[str]]:
    """Return label, model and placement of all that can run here, and the labels of what cannot."""
    import llama_cpp

    found, missing = [], []
    for model in models:
        is_file = model.endswith(".gguf")
        for name, placement in (FILE_PLACES if is_file else RUN_PLACES).items():
            label = f"{Path(model).stem.removeprefix('model-')}, {name}" if is_file else name
            can = llama_cpp.llama_supports_gpu_offload() if is_file else bool(gpu_name())
            is_on_gpu = placement.device == "cuda" or placement.gpu_layers
            if can or not is_on_gpu:
                found.append((label, model, placement))
            else:
                missing.append(label)
    return found, missing


def did(outcome: CaseOutcome) -> Any:
    """Return what counts of a case."""
    actions = [(one.device, one.action, one.input, one.status) for one in outcome.result.actions]
    return actions, outcome.result.stop_reason


def agreement(runs: list[EngineRun]) -> dict[str, dict[str, float]]:
    """Return for every two places the share of cases on which they agree."""
    done = {run.label: [did(outcome) for outcome in run.evaluation.constrained] for run in runs}
    return {
        one: {
            other: round(sum(a == b for a, b in zip(first, second, strict=True)) / len(first), 4)
            for other, second in done.items()
        }
        for one, first in done.items()
    }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="a run, and GGUF files of it")
    parser.add_argument("--site", default="home")
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    site, cases = load_site(given.site), read_cases(given.cases)
    found, missing = places(given.models)
    runs: list[EngineRun] = []
    for label, name, placement in found:
        model = replace(find_model(name, site), label=label)
        runs += grade([model], site, cases, placement)
    provenance = Provenance("", "python -m benchmarks.placements", machine_with_gpu(), installed_versions())
    report = build_report(runs, provenance, title=f"{site.name} in {len(runs)} places")
    print(terminal_table(report))
    kept = ("label", "shares", "latency", "memory_bytes", "wall_s", "file_bytes")
    result = {key: report[key] for key in ("command", "machine", "versions", "cases")} | {
        "places": [{key: engine.get(key) for key in kept} for engine in report["engines"]],
        "agreement": agreement(runs),
        "not_run": missing,
    }
    save(result, given.out)
    print(json.dumps(result["agreement"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
