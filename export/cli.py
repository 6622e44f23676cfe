"""The commands `edgewright export` and `edgewright flash`: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from devices.errors import UsageError

_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    app.command("export")(export)
    app.command("flash")(flash)


def export(
    run: Annotated[Path, typer.Argument(help="A folder that `edgewright train` made.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle's folder.")],
    quant: Annotated[
        list[str],
        typer.Option(
            "--quant", help="F16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0 or IQ4_XS; several with commas. The last is bundled."
        ),
    ] = ["Q4_K_M"],  # noqa: B006 (Typer's form for an option that repeats)
    target: Annotated[
        str, typer.Option("--target", help="A box, such as rpi5-8gb: its best quantization, instead of --quant.")
    ] = "",
    work: Annotated[Path | None, typer.Option(help="Where GGUF files are kept; default: `gguf` beside OUT.")] = None,
    base: Annotated[Path | None, typer.Option(help="The base model's folder, if not where the run says.")] = None,
    smoke: Annotated[Path | None, typer.Option(help="Cases to put into the bundle; default: RUN/smoke.jsonl.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; default: the name of OUT.")] = None,
    merge_base: Annotated[
        str, typer.Option("--merge-base", help="original, or nf4: what NF4 keeps of the base, as training saw it.")
    ] = "original",
    save_merged: Annotated[
        Path | None, typer.Option("--save-merged", help="A folder for the merged model as Hugging Face has it.")
    ] = None,
    adapter_file: Annotated[
        Path | None, typer.Option("--adapter-file", help="A GGUF file for the adapter alone, over the base's.")
    ] = None,
    endless: Annotated[
        bool, typer.Option("--endless", help="Export even if replies do not end by themselves.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Merge, convert, quantize and check a run; write a bundle."""
    from export.export import MergeBase, Wishes, export_run, quant_for
    from export.quantize import parse_quants

    if merge_base not in get_args(MergeBase):
        raise UsageError(f"unknown merge base {merge_base!r}", hint=f"choose from {', '.join(get_args(MergeBase))}")
    quants = [quant_for(target, run, base, _say)] if target else parse_quants(quant)
    result = export_run(
        run,
        quants,
        out,
        work=work,
        base=base,
        smoke=smoke,
        name=name,
        wishes=Wishes(cast(MergeBase, merge_base), save_merged, adapter_file, endless),
        say=_say,
    )
    print(json.dumps(result, indent=2, ensure_ascii=False) if as_json else out)


def flash(
    paths: Annotated[list[Path], typer.Argument(metavar="[BUNDLE] TARGET", help="With --rollback, TARGET only.")],
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the previous bundle.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify, say what would be done, change nothing.")] = False,
    as_json: _Json = False,
) -> None:
    """Put a bundle on a box, or go back to the previous one."""
    from dataclasses import asdict

    from export import flash as flashing

    if len(paths) > 2 or (len(paths) < 2 and not rollback):
        raise UsageError(f"{len(paths)} paths given", hint="edgewright flash BUNDLE TARGET, or flash --rollback TARGET")
    if rollback:
        report = flashing.rollback(paths[-1], dry_run=dry_run)
    elif dry_run or not sys.stderr.isatty():
        report = flashing.flash(*paths, dry_run=dry_run)
    else:
        size_bytes = flashing.flash(*paths, dry_run=True).copied_bytes
        with typer.progressbar(length=size_bytes, label="copying", file=sys.stderr) as bar:
            report = flashing.flash(*paths, progress=bar.update)
    for step in report.steps:
        _say(f"would {step}" if dry_run else step)
    print(json.dumps(asdict(report)) if as_json else report.id)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
