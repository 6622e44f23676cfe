"""What a training run leaves behind. `export` reads it, so its names are a format.

    OUT/adapter/        adapter_model.safetensors, adapter_config.json
    OUT/recipe.yaml     the complete recipe, as it ran
    OUT/site.yaml       the site file, byte for byte
    OUT/sample.jsonl    the first rows of the data
    OUT/held_out.jsonl  of a toolset: the conversations that were not trained on
    OUT/metrics.jsonl   loss, gradient norm, rate, speed and memory of every step; losses on held-out rows
    OUT/tensorboard/    the same for TensorBoard, if training.tensorboard is true
    OUT/report.html     the loss curve, for people
    OUT/run.json        what went in, what came out, and with which versions (edge_agent/run_facts.py)
    OUT/checkpoints/    the last ones

A run works in OUT.part, which becomes OUT at its very end: what is called OUT is finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from devices.durable import sha256_of, sync
from devices.errors import UsageError
from devices.site.site import site_path
from edge_agent.engine.machine import installed_versions
from edge_agent.run_facts import HELD_OUT_FILE, RUN_FILE, RunFacts
from finetune.data.toolsets.rows import OwnRow, write_held_out
from finetune.recipe import Recipe, load_recipe

METRICS, BEST, SAMPLE, BOARD = "metrics.jsonl", "best", "sample.jsonl", "tensorboard"
SAMPLE_ROWS = 32  # the first of the data; held-out rows are its last
PACKAGES = ("edgewright", "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "tokenizers")


def part_of(out: Path) -> Path:
    """Return the folder a run works in until it is finished."""
    return out.with_name(out.name + ".part")


def open_run(
    recipe: Recipe, out: Path, own: tuple[Sequence[OwnRow], Sequence[OwnRow]] | None = None, *, resume: bool
) -> None:
    """Make OUT.part ready and put recipe, site and sample into it, unless there is a checkpoint to go on from.

    `own` are the conversations of a toolset, trained and held-out ones: they are written as they are trained.

    Raises:
        UsageError: OUT is there already, a run was interrupted and `resume` was not asked for, there is nothing to
            resume, or the interrupted run had another recipe or other data.
    """
    part = part_of(out)
    if out.exists():
        raise UsageError(f"{out} is there already", hint="choose another out, or move it away")
    checkpoint = last_checkpoint(part)
    if resume:
        if checkpoint is None:
            raise UsageError(f"nothing to resume: {part} has no checkpoint", hint="start the run without resume")
        _require_same(part, recipe)
        return
    if checkpoint is not None:
        raise UsageError(
            f"{part} is an interrupted run with {checkpoint.name}",
            hint="resume it, or remove that folder to start over",
        )
    shutil.rmtree(part, ignore_errors=True)
    (part / "checkpoints").mkdir(parents=True)
    (part / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    shutil.copyfile(site_path(recipe.site), part / "site.yaml")
    if own:
        sample = "".join(one.row.to_json() + "\n" for one in own[0][:SAMPLE_ROWS])
        write_held_out(part / HELD_OUT_FILE, own[1])
    else:
        of_before = Path(recipe.preference.start_from) / SAMPLE if recipe.preference else None  # pairs are no rows
        with (of_before or Path(recipe.data)).open(encoding="utf-8") as rows:
            sample = "".join(islice(rows, SAMPLE_ROWS))
    (part / SAMPLE).write_text(sample, encoding="utf-8")
    (part / "data.sha256").write_text(_data_sha256(recipe), encoding="utf-8")


def finish_run(out: Path, facts: RunFacts, page: str) -> None:
    """Write run.json and the page about it, make everything durable, and give the folder its name."""
    part = part_of(out)
    (part / "report.html").write_text(page, encoding="utf-8")
    (part / RUN_FILE).write_text(facts.to_json(), encoding="utf-8")
    (part / "data.sha256").unlink(missing_ok=True)
    shutil.rmtree(part / BEST, ignore_errors=True)  # it is the adapter
    _rename_durably(part, out)


def keep_checkpoint(saved: Path, folder: Path, keep: int) -> None:
    """Move a checkpoint that was saved aside into `folder`, durably; remove all but the newest `keep`."""
    target = folder / saved.name
    shutil.rmtree(target, ignore_errors=True)
    _rename_durably(saved, target)
    for old in _checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def last_checkpoint(part: Path) -> Path | None:
    """Return the newest checkpoint; each is whole, as it was saved aside and renamed."""
    return next(reversed(_checkpoints(part / "checkpoints")), None)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def base_sha256(base: str) -> dict[str, str]:
    """Return the hash of every file of a base folder, by name; empty for a hub name."""
    folder = Path(base)
    return (
        {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file()} if folder.is_dir() else {}
    )


def tool_versions() -> dict[str, str]:
    """Return the versions of Python and of every package that shapes a run; a missing one is left out."""
    return installed_versions(PACKAGES)


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))


def _require_same(part: Path, recipe: Recipe) -> None:
    before = load_recipe(part / "recipe.yaml")
    if changed := _changed_keys(before.model_dump(by_alias=True), recipe.model_dump(by_alias=True)):
        raise UsageError(
            f"{part} was started with another {changed[0]}", hint=f"its recipe is {part / 'recipe.yaml'}; use that one"
        )
    now = _data_sha256(recipe)
    for line in (part / "data.sha256").read_text(encoding="utf-8").splitlines():
        if line not in now:
            path = line.partition("  ")[2]
            raise UsageError(f"{path} changed since {part} was started", hint="restore it, or start a new run")


def _data_sha256(recipe: Recipe) -> str:
    """Return a line with hash and path for each file that is trained on, as sha256sum writes them."""
    paths = [Path(recipe.data)]
    if recipe.general and (general := Path(recipe.general.data)).exists():
        paths += sorted(path for path in general.rglob("*") if path.is_file()) if general.is_dir() else [general]
    return "".join(f"{file_sha256(path)}  {path}\n" for path in paths)


def _changed_keys(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    changed = []
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            changed += _changed_keys(old, value, f"{prefix}{key}.")
        elif value != old:
            changed.append(f"{prefix}{key}")
    return changed


def _rename_durably(aside: Path, path: Path) -> None:
    for inner in [*aside.rglob("*"), aside]:
        sync(inner)
    aside.rename(path)
    sync(path.parent)
