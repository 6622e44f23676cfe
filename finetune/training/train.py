"""A training run from recipe to run folder: check, train, write down. Training itself is in adapter_trainer.py."""

from __future__ import annotations

import io
import os
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.errors import GateError, UnavailableError, UsageError
from devices.site.site import load_site
from edge_agent.base_models import PACKAGES
from edge_agent.engine.free_memory import is_out_of_memory
from edge_agent.progress import ProgressBar
from edge_agent.run_facts import DataFacts, GeneralFacts, RunFacts
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import Contract, contract_of, format_digest
from finetune.data.encoded_rows import spans
from finetune.data.preference_pairs import both_replies
from finetune.recipe import General, Recipe
from finetune.training.compiled_layers import compile_layers, require_compiler
from finetune.training.general import GeneralRows
from finetune.training.metrics import HELD_OUT_LOSS, Metrics
from finetune.training.processor import keep_freed_memory, prepare_processor
from finetune.training.quantized_base import (
    Machine,
    choose_device,
    choose_dtype,
    choose_optimizer,
    count_parameters,
    is_sharded,
    load_config,
    load_tokenizer,
)
from finetune.training.run_folder import (
    BEST,
    METRICS,
    base_sha256,
    file_sha256,
    finish_run,
    last_checkpoint,
    open_run,
    part_of,
    tool_versions,
)
from finetune.training.run_report import run_page
from finetune.training.training_data import TrainingData, load_data, load_own

if TYPE_CHECKING:
    from finetune.training.memory_plan import Plan, Planner


class Interrupted(UnavailableError):
    """The run stopped before its end; its last checkpoint is usable."""


def train_run(recipe: Recipe, *, resume: bool = False, progress: ProgressBar | None = None) -> RunFacts:
    """Train an adapter as the recipe says and leave a run folder (run_folder.py) at recipe.out.

    Under `accelerate launch` each process trains on its share of every step's rows, which are then training.batch_rows
    times the processes; the first one writes the folder.

    Args:
        recipe: everything that decides the run.
        resume: go on from the last checkpoint of an interrupted run of the same recipe and data.
        progress: where notes and steps are shown; stderr if None.

    Raises:
        UsageError: the recipe, the base or a row does not fit; found before training starts.
        UnavailableError: the hub is out of reach, or memory ran out.
        Interrupted: stopped by Ctrl-C.
        GateError: the data has seen evaluation cases; or the run is finished, and the loss on general rows rose by
            more than the recipe allows.
    """
    progress = progress or ProgressBar(sys.stderr if is_first_process() else io.StringIO())
    run = _prepare(recipe, progress)
    if is_first_process():
        open_run(recipe, run.out, run.inputs.data.own, resume=resume)
    run.processes.wait_for_everyone()
    fitted = _fit(run, last_checkpoint(part_of(run.out)) if resume else None, progress)
    run.processes.wait_for_everyone()
    facts = _save(run, fitted, progress)
    run.processes.wait_for_everyone()
    if is_first_process():
        finish_run(run.out, facts, run_page(facts))
    _require_little_forgotten(recipe, facts)
    return facts


@dataclass(frozen=True)
class _Prepared:
    """What is known of a run before its first step. `fitted` is the recipe with what `auto` came to."""

    recipe: Recipe
    fitted: Recipe
    machine: Machine
    processes: Any
    inputs: _Inputs

    @property
    def out(self) -> Path:
        return Path(self.recipe.out)


@dataclass(frozen=True)
class _Inputs:
    """What a run goes in with, beside the model: `free` is the memory there is for it, None if not known."""

    contract: Contract
    tokenizer: Any
    data: TrainingData
    planner: Planner
    free: int | None


@dataclass(frozen=True)
class _Fitted:
    """A trained model: the parameters it trained of all, the general rows' loss before, and how long it took."""

    trainer: Any
    trained_parameters: int
    all_parameters: int
    general_before: tuple[float, int]
    seconds: float


def _prepare(recipe: Recipe, progress: ProgressBar) -> _Prepared:
    """Check and load everything but the model; raise before any weight is loaded if memory will not do."""
    from accelerate import PartialState

    machine = _choose_machine(recipe, progress)
    if is_sharded() and (recipe.training.share_prefix or recipe.preference):
        raise UsageError(
            "with FSDP the layers run once a step, for share_prefix and preference they would twice",
            hint="training.share_prefix=false, or launch without FSDP",
        )
    if is_sharded() and recipe.training.is_compiled:
        raise UsageError("with FSDP layers are not compiled", hint="set training.is_compiled=false")
    if machine.device == "cpu":
        prepare_processor()
        if recipe.training.is_compiled:
            require_compiler()
    processes = PartialState(cpu=machine.device == "cpu")
    inputs = _load_inputs(recipe, machine, progress)
    fitted = inputs.planner.fit(recipe, inputs.free)
    if recipe.training.share_prefix and not fitted.training.share_prefix:
        progress.note("rows are longer than the base's attention window: they do not share their prefix")
    _require_fit(inputs.planner.shortage(fitted, inputs.free))
    if machine.device == "cpu":
        keep_freed_memory(inputs.planner.has_plenty(fitted, inputs.free))
    return _Prepared(recipe, fitted, machine, processes, inputs)


def _load_inputs(recipe: Recipe, machine: Machine, progress: ProgressBar) -> _Inputs:
    import finetune.training.adapter_trainer  # noqa: F401  # what training has loaded is counted
    from finetune.training.memory_plan import Planner, free_for

    site = load_site(recipe.site)
    contract = contract_of(site, load_template(recipe.template))
    tokenizer = load_tokenizer(recipe)
    data = (load_own if site.is_toolset else load_data)(recipe, contract, tokenizer, progress)
    if recipe.preference:
        planner = Planner(machine, both_replies(data.pairs), load_config(recipe), replies=2)
    else:
        planner = Planner(machine, data.trained, load_config(recipe))
    return _Inputs(contract, tokenizer, data, planner, free_for(machine))


def _fit(run: _Prepared, checkpoint: Path | None, progress: ProgressBar) -> _Fitted:
    """Load the base and train; UnavailableError with what would help if memory runs out."""
    trainer = None
    try:
        trainer = _build_trainer(run, progress)
        if run.recipe.training.is_compiled:
            compile_layers(trainer.model.get_base_model())
            progress.note("the first step takes a minute more: the layers are compiled")
        trained, total = count_parameters(trainer.model)
        progress.note(f"trained parameters {trained:,} of {total:,} ({trained / total:.2%})")
        general_before = _measure_general(trainer, run.inputs.data.general)  # of a fresh adapter: the base
        progress.note(f"at most {run.fitted.training.batch_tokens} tokens through the layers at once")
        started_s = time.monotonic()
        _train(trainer, checkpoint, part_of(run.out), progress)
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # what they hold is needed to say what helps
        where = f"at step {trainer.state.global_step}" if trainer else "loading the base"
        name = "GPU memory" if run.machine.device == "cuda" else "memory"
        raise UnavailableError(f"out of {name} {where}", hint=run.inputs.planner.hint(run.fitted)) from error
    return _Fitted(trainer, trained, total, general_before, time.monotonic() - started_s)


def _build_trainer(run: _Prepared, progress: ProgressBar) -> Any:
    tokenizer, data = run.inputs.tokenizer, run.inputs.data
    if run.recipe.preference:
        from finetune.training.preference_trainer import build_preference_trainer

        preference, pairs = run.recipe.preference, data.pairs
        return build_preference_trainer(run.fitted, preference, run.machine, tokenizer, pairs, progress)
    from finetune.training.adapter_trainer import build_trainer

    trainer = build_trainer(run.fitted, run.machine, tokenizer, data.trained, data.held_out, progress)
    if first := run.recipe.first_run:
        trainer.load_adapter(first / "adapter")
        progress.note(f"going on from the adapter of {first}")
    return trainer


def _save(run: _Prepared, fitted: _Fitted, progress: ProgressBar) -> RunFacts:
    """Write the adapter, the best one if that was kept, and return what the run was."""
    recipe, data, machine, trainer = run.recipe, run.inputs.data, run.machine, fitted.trainer
    if (best := part_of(run.out) / BEST).exists():
        trainer.load_adapter(best)
    trainer.save_adapter(part_of(run.out) / "adapter")
    general = _general_facts(recipe.general, data.general, fitted.general_before, trainer, progress)
    metrics = Metrics(part_of(run.out) / METRICS, trainer.state.global_step)
    return RunFacts(
        base=recipe.base if recipe.base in PACKAGES else recipe.base_path_or_name,
        base_sha256=base_sha256(recipe.base_path_or_name),
        site=recipe.site,
        template=recipe.template,
        contract=run.inputs.contract.digest,
        any_site=format_digest(run.inputs.contract.template) if recipe.any_site else "",
        data=DataFacts(
            path=recipe.data,
            sha256=file_sha256(Path(recipe.data)),
            rows=len(data.site.token_ids),
            tokens=data.site.tokens,
            trained_tokens=data.site.trained_tokens,
            dropped=data.site.dropped,
        ),
        versions=tool_versions(),
        device=machine.device,
        dtype=machine.dtype_name,
        optimizer=machine.optimizer,
        trained_parameters=fitted.trained_parameters,
        all_parameters=fitted.all_parameters,
        losses=metrics.series("loss"),
        held_out_losses=metrics.series(HELD_OUT_LOSS),
        general=general,
        seconds=round(fitted.seconds, 1),
        tokens_per_s=round(trainer.all_seen_tokens / fitted.seconds, 1),
        seed=recipe.seed,
        processes=run.processes.num_processes,
    )


def _require_little_forgotten(recipe: Recipe, facts: RunFacts) -> None:
    general, most = facts.general, recipe.general.max_rise if recipe.general else None
    if general and most is not None and (rise := general.loss_after - general.loss_before) > most:
        raise GateError(
            f"{recipe.out}: the loss on {general.held_out_rows} general rows rose by {rise:.3f} nats a token",
            hint=f"general.max_rise is {most}; raise general.share, or train less",
        )


def is_first_process() -> bool:
    """Return whether this is the one process, or the first of several, which says and writes what all have done."""
    return os.environ.get("RANK", "0") == "0"


def _measure_general(trainer: Any, general: GeneralRows | None) -> tuple[float, int]:
    """Return the mean loss on held-out general rows, and how many short replies are exact."""
    return (trainer.mean_loss(general.held_out), trainer.count_exact(general.short)) if general else (0.0, 0)


def _general_facts(
    recipe: General | None, rows: GeneralRows | None, before: tuple[float, int], trainer: Any, progress: ProgressBar
) -> GeneralFacts | None:
    if recipe is None or rows is None:
        return None
    after, short = _measure_general(trainer, rows), len(rows.short.token_ids)
    losses = f"{before[0]:.4f} before, {after[0]:.4f} after"
    progress.note(
        f"loss on {len(rows.held_out.token_ids)} general rows: {losses}; "
        f"of {short} short replies {before[1]} exact before, {after[1]} after"
    )
    return GeneralFacts(
        data=recipe.data,
        rows=len(rows.mixed.token_ids),
        rejected=rows.rejected,
        held_out_rows=len(rows.held_out.token_ids),
        loss_before=round(before[0], 5),
        loss_after=round(after[0], 5),
        short=short,
        exact_before=before[1],
        exact_after=after[1],
    )


@dataclass(frozen=True)
class DryRun:
    """What a run would take, and examples of what it would see: stretches of text, and whether each is trained.

    `shortage` is how training would end before its first step for want of memory, and the hint; two "" if it would not.
    """

    plan: Plan
    rows: int
    dropped: int
    largest_tokens: int
    examples: tuple[list[tuple[str, bool]], ...]
    shortage: tuple[str, str]


def dry_run(recipe: Recipe, progress: ProgressBar | None = None) -> DryRun:
    """Check all that training checks before it starts, and plan it; loads no weights and writes nothing.

    Raises:
        UsageError, UnavailableError, GateError: as train_run.
    """
    progress = progress or ProgressBar()
    inputs = _load_inputs(recipe, _choose_machine(recipe, progress), progress)
    planner, free, rows = inputs.planner, inputs.free, inputs.data.trained
    plan = planner.plan(recipe, free)
    shortage = planner.shortage(planner.fit(recipe, free), free)
    count, tokenizer = len(rows.token_ids), inputs.tokenizer
    examples = tuple(spans(rows.token_ids[at], rows.labels[at], tokenizer) for at in sorted({0, count // 2, count - 1}))
    return DryRun(plan, count, rows.dropped, max(map(len, rows.token_ids)), examples, shortage)


def _choose_machine(recipe: Recipe, progress: ProgressBar) -> Machine:
    device = choose_device(recipe.device)
    optimizer, reason = choose_optimizer(recipe.training.optimizer, device)
    machine = Machine(device, choose_dtype(recipe.compute_dtype, device), optimizer)
    progress.note(f"device {machine.device}, computing in {machine.dtype_name}, base in {recipe.quantization}")
    if reason:
        progress.note(f"optimizer {optimizer} for {recipe.training.optimizer}: {reason}")
    return machine


def _train(trainer: Any, checkpoint: Path | None, part: Path, progress: ProgressBar) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"stopped after step {trainer.state.global_step}; checkpoints are in {part / 'checkpoints'}",
            hint="the same command with --resume goes on from the last one",
        ) from error
    finally:
        progress.close()


def _require_fit(shortage: tuple[str, str]) -> None:
    message, hint = shortage
    if message:
        raise UnavailableError(message, hint=hint)
