"""Does a file do the tasks that the Hugging Face model does? The same held-out cases for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devices.errors import GateError
from devices.site.site import Site
from edge_agent.evaluation.cases import Case
from edge_agent.evaluation.gate_limits import GateLimits
from edge_agent.evaluation.metrics import EngineMetrics, compare, measure
from edge_agent.evaluation.model_processes import Model, Placement, grade
from edge_agent.plugins import HUGGINGFACE
from edge_agent.wire.chat_template import ChatTemplate
from export.gates.parity import F16Reference
from export.trained.samples import Sample


@dataclass(frozen=True)
class Tasks:
    """Cases to run, of a site, and where."""

    site: Site
    cases: Sequence[Case]
    placement: Placement


def check_tasks(
    tasks: Tasks,
    run: Path,
    base: Path,
    files: Mapping[str, Path],
    adapter: Path | None,
    template: ChatTemplate,
    limits: GateLimits,
) -> dict[str, Any]:
    """Return the share of tasks done by the run as Hugging Face has it and by each file, and what changed.

    Args:
        tasks: cases, and what runs them.
        run: the run's folder.
        base: the base model's folder.
        files: GGUF files by name.
        adapter: GGUF file of an adapter to apply to each.
        template: of the run.
        limits: how far a share may fall.

    Raises:
        GateError: a file does significantly fewer tasks.
    """
    trained = Model("Hugging Face", "tuned", str(base), HUGGINGFACE, template.name, str(run / "adapter"))
    models = [
        Model(name, "quant", str(path), template=template.name, adapter=str(adapter or ""))
        for name, path in files.items()
    ]
    runs = grade([trained, *models], tasks.site, tasks.cases, tasks.placement, latency_cases=0)
    first, *others = (measure(one.evaluation) for one in runs)
    result: dict[str, Any] = {"cases": len(tasks.cases), "Hugging Face": _share(first)}
    for name, metrics in zip(files, others, strict=True):
        change = compare(first, metrics)["task_success"]
        result[name] = _share(metrics) | {"change": asdict(change)}
        if change.high is not None and change.high < -limits.task_drop:
            here, there = (one.shares["task_success"].count for one in (metrics, first))
            raise GateError(
                f"gate tasks: {name} does {here} of {len(tasks.cases)}, the Hugging Face model {there} "
                f"(95 % interval of the change: {change.low:+.3f} to {change.high:+.3f})",
                hint="use a quantization with more bits",
            )
    return result


def _share(metrics: EngineMetrics) -> dict[str, Any]:
    return asdict(metrics.shares["task_success"])


def better_base(
    files: Mapping[str, Path], samples: Sequence[Sample], tasks: Tasks | None, template: ChatTemplate
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the name of the file that does more tasks, or with as many has the lower loss, and what was measured.

    Args:
        files: F16 files by name.
        samples: of training conversations, whose replies the loss is the mean of, in nats a token.
        tasks: None compares losses only.
        template: of the run.
    """
    measured: dict[str, dict[str, Any]] = {}
    for name, path in files.items():
        measured[name] = {"loss": F16Reference(path, samples).loss()}
    if tasks:
        models = [Model(name, "f16", str(path), template=template.name) for name, path in files.items()]
        runs = grade(models, tasks.site, tasks.cases, tasks.placement, latency_cases=0)
        for name, run in zip(files, runs, strict=True):
            measured[name]["tasks_done"] = measure(run.evaluation).shares["task_success"].count
    best = max(measured, key=lambda name: (measured[name].get("tasks_done", 0), -measured[name]["loss"]))
    return best, measured
