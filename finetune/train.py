"""A training run from recipe to run folder: check, train, write down. Training itself is in adapter_trainer.py."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.errors import UnavailableError
from devices.site import load_site
from edge_agent.wire import contract_of, load_template
from finetune.metrics import Metrics
from finetune.processor import prepare_processor
from finetune.progress_bar import StepProgress
from finetune.quantized_base import (
    Machine,
    choose_device,
    choose_dtype,
    choose_optimizer,
    count_parameters,
    load_config,
    load_tokenizer,
)
from finetune.recipe import Recipe
from finetune.run_folder import (
    BEST,
    METRICS,
    DataFacts,
    RunFacts,
    base_sha256,
    file_sha256,
    finish_run,
    open_run,
    part_of,
    tool_versions,
)
from finetune.training_rows import EncodedRows, encode_rows, spans

if TYPE_CHECKING:
    from finetune.plan import Plan


class Interrupted(UnavailableError):
    """The run stopped before its end; its last checkpoint is usable."""


def train_run(recipe: Recipe, *, resume: bool = False, progress: StepProgress | None = None) -> RunFacts:
    """Train an adapter as the recipe says and leave a run folder (finetune/run_folder.py) at recipe.out.

    Args:
        recipe: everything that decides the run.
        resume: go on from the last checkpoint of an interrupted run of the same recipe and data.
        progress: where notes and steps are shown; stderr if None.

    Raises:
        UsageError: the recipe, the base or a row does not fit; found before training starts.
        UnavailableError: the hub is out of reach, or memory ran out.
        Interrupted: stopped by Ctrl-C.
    """
    import torch

    from finetune.adapter_trainer import build_trainer

    progress = progress or StepProgress()
    contract = contract_of(load_site(recipe.site), load_template(recipe.template))
    machine = _choose_machine(recipe, progress)
    if machine.device == "cpu":
        prepare_processor()
    tokenizer = load_tokenizer(recipe)
    encoded = encode_rows(Path(recipe.data), contract, tokenizer, recipe.training.max_tokens)
    rows, held_out = encoded.split(recipe.training.held_out_rows)
    out = Path(recipe.out)
    checkpoint = open_run(recipe, out, resume=resume)

    trainer = build_trainer(recipe, machine, tokenizer, rows, held_out, progress)
    trained, total = count_parameters(trainer.model)
    progress.note(f"trained parameters {trained:,} of {total:,} ({trained / total:.2%})")
    progress.note(
        f"{len(rows.token_ids)} rows ({rows.dropped} longer than {recipe.training.max_tokens} tokens dropped), "
        f"{rows.tokens:,} tokens an epoch, {rows.trained_tokens:,} of them trained"
    )
    started_s = time.monotonic()
    try:
        _train(trainer, checkpoint, part_of(out), progress)
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(recipe, machine, rows, trainer) from error
    seconds = time.monotonic() - started_s

    if (best := part_of(out) / BEST).exists():
        best.rename(part_of(out) / "adapter")
    else:
        trainer.save_adapter(part_of(out) / "adapter")
    metrics = Metrics(part_of(out) / METRICS, trainer.state.global_step)
    facts = RunFacts(
        base=recipe.base_path_or_name,
        base_sha256=base_sha256(recipe.base_path_or_name),
        site=recipe.site,
        template=recipe.template,
        contract=contract.digest,
        data=DataFacts(
            path=recipe.data,
            sha256=file_sha256(Path(recipe.data)),
            rows=len(rows.token_ids),
            tokens=rows.tokens,
            trained_tokens=rows.trained_tokens,
            dropped=rows.dropped,
        ),
        versions=tool_versions(),
        device=machine.device,
        dtype=machine.dtype_name,
        optimizer=machine.optimizer,
        trained_parameters=trained,
        all_parameters=total,
        losses=metrics.series("loss"),
        held_out_losses=metrics.series("held_out_loss"),
        seconds=round(seconds, 1),
        tokens_per_s=round(trainer.seen_tokens / seconds, 1),
        seed=recipe.seed,
    )
    finish_run(out, facts)
    return facts


@dataclass(frozen=True)
class DryRun:
    """What a run would take, and examples of what it would see: stretches of text, and whether each is trained."""

    plan: Plan
    rows: int
    dropped: int
    largest_tokens: int
    examples: tuple[list[tuple[str, bool]], ...]


def dry_run(recipe: Recipe, progress: StepProgress | None = None) -> DryRun:
    """Check all that training checks before it starts, and plan it; loads no weights and writes nothing.

    Raises:
        UsageError, UnavailableError: as train_run.
    """
    from finetune.plan import Planner

    machine = _choose_machine(recipe, progress or StepProgress())
    contract = contract_of(load_site(recipe.site), load_template(recipe.template))
    tokenizer = load_tokenizer(recipe)
    encoded = encode_rows(Path(recipe.data), contract, tokenizer, recipe.training.max_tokens)
    rows, _ = encoded.split(recipe.training.held_out_rows)
    plan = Planner(machine, rows, load_config(recipe)).plan(recipe)
    count = len(rows.token_ids)
    examples = tuple(spans(rows.token_ids[at], rows.labels[at], tokenizer) for at in sorted({0, count // 2, count - 1}))
    return DryRun(plan, count, encoded.dropped, max(map(len, rows.token_ids)), examples)


def _choose_machine(recipe: Recipe, progress: StepProgress) -> Machine:
    device = choose_device(recipe.device)
    optimizer, reason = choose_optimizer(recipe.training.optimizer, device)
    machine = Machine(device, choose_dtype(recipe.compute_dtype, device), optimizer)
    progress.note(f"device {machine.device}, computing in {machine.dtype_name}, base in {recipe.quantization}")
    if reason:
        progress.note(f"optimizer {optimizer} for {recipe.training.optimizer}: {reason}")
    return machine


def _train(trainer: Any, checkpoint: Path | None, part: Path, progress: StepProgress) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"stopped after step {trainer.state.global_step}; checkpoints are in {part / 'checkpoints'}",
            hint="the same command with --resume goes on from the last one",
        ) from error
    finally:
        progress.close()


def _out_of_memory(recipe: Recipe, machine: Machine, rows: EncodedRows, trainer: Any) -> UnavailableError:
    from finetune.plan import Planner, size_text

    saved = Planner(machine, rows, load_config(recipe)).savings(recipe)
    hints = [f"{settings} saves about {size_text(count)}" for settings, count in saved[:3]]
    return UnavailableError(f"out of GPU memory at step {trainer.state.global_step}", hint="; ".join(hints))
