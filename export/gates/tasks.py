"""Does a file do the tasks that the Hugging Face model does? The same held-out cases for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from devices.errors import GateError
from devices.site.site import Site
from edge_agent.evaluation.cases import Case
from edge_agent.evaluation.conversations.turns import TurnCase
from edge_agent.evaluation.gate_limits import GateLimits
from edge_agent.evaluation.intervals import paired_difference, share_of
from edge_agent.evaluation.models.grading import grade, grade_turns
from edge_agent.evaluation.models.model import Model
from edge_agent.evaluation.models.placement import Placement
from edge_agent.evaluation.scoring import score_case
from edge_agent.plugins import HUGGINGFACE
from edge_agent.wire.chat_template import ChatTemplate
from export.gates.parity import F16Reference
from export.trained.samples import Sample


class Tasks(Protocol):
    """Held-out tasks."""

    def done_by(self, models: Sequence[Model]) -> list[list[bool]]:
        """Return for each model which tasks it does. Raises UnavailableError if a model's process died."""
        ...


@dataclass(frozen=True)
class SiteTasks:
    """Requests of a site, and where they are put to models."""

    site: Site
    cases: Sequence[Case]
    placement: Placement

    def done_by(self, models: Sequence[Model]) -> list[list[bool]]:
        """Return for each model which requests it does, under the grammar."""
        runs = grade(models, self.site, self.cases, self.placement, latency_cases=0)
        return [[score_case(outcome).is_success for outcome in one.evaluation.constrained] for one in runs]


@dataclass(frozen=True)
class TurnTasks:
    """Replies in held-out conversations of a toolset, and where models make them."""

    cases: Sequence[TurnCase]
    placement: Placement

    def done_by(self, models: Sequence[Model]) -> list[list[bool]]:
        """Return for each model which of its replies are good, under the grammar."""
        return [[score.is_good for score in grade_turns(model, self.cases, self.placement)[1]] for model in models]


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
    first, *others = tasks.done_by([trained, *models])
    result: dict[str, Any] = {"cases": len(first), "Hugging Face": asdict(share_of(first))}
    for name, done in zip(files, others, strict=True):
        change = paired_difference(first, done)
        result[name] = asdict(share_of(done)) | {"change": asdict(change)}
        if change.high is not None and change.high < -limits.task_drop:
            raise GateError(
                f"gate tasks: {name} does {sum(done)} of {len(first)}, the Hugging Face model {sum(first)} "
                f"(95 % interval of the change: {change.low:+.3f} to {change.high:+.3f})",
                hint="use a quantization with more bits",
            )
    return result


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
        for name, done in zip(files, tasks.done_by(models), strict=True):
            measured[name]["tasks_done"] = sum(done)
    best = max(measured, key=lambda name: (measured[name].get("tasks_done", 0), -measured[name]["loss"]))
    return best, measured
