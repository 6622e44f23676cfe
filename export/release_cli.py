"""The commands `edgewright keys`, `repo` and `box trust|pull`: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devices.options import Json
from edge_agent.progress import byte_progress_bar

if TYPE_CHECKING:
    from export.release.repository import Published

KeysFolder = Annotated[Path, typer.Option("--keys", metavar="KEYS", help="The folder that `keys new` made.")]
RepoFolder = Annotated[Path, typer.Argument(metavar="REPO", help="The repository's folder.")]
BoxRoot = Annotated[Path, typer.Argument(metavar="BOX", help="The box's root, on this machine.")]
DEVELOPMENT_WARNING = "one development key signs all: for trying, not for boxes that matter"


def register(app: typer.Typer) -> None:
    """Add the commands of who publishes."""
    keys = typer.Typer(no_args_is_help=True, help="Keys that sign releases.")
    keys.command("new")(new_keys)
    repo = typer.Typer(no_args_is_help=True, help="A signed repository of bundles: static files that boxes pull from.")
    repo.command("init")(init)
    repo.command("publish")(publish)
    repo.command("delegate")(delegate)
    repo.command("renew")(renew)
    repo.command("rotate")(rotate)
    repo.command("check")(check)
    app.add_typer(keys, name="keys")
    app.add_typer(repo, name="repo")


def register_box(box: typer.Typer) -> None:
    """Add the commands of boxes that pull."""
    box.command("trust")(trust)
    box.command("pull")(pull)


def new_keys(
    folder: Annotated[Path, typer.Argument(metavar="KEYS", help="A new folder.")],
    is_development: Annotated[bool, typer.Option("--development", help="One key for all roles, for trying.")] = False,
    channel: Annotated[str, typer.Option(help="Only the own key of this channel (`repo delegate`).")] = "",
) -> None:
    """Make the keys of a repository (ed25519). EDGEWRIGHT_KEYS_PASSPHRASE encrypts them."""
    from export.release.keys import new_keys as make

    for path in make(folder, is_development=is_development, channel=channel):
        print(path)
    if is_development:
        _log(DEVELOPMENT_WARNING)
    elif not channel:
        _log("keep root-1, root-2 and root-3 offline and apart: two of them decide which other keys count")


def init(repo: RepoFolder, keys: KeysFolder) -> None:
    """Make an empty repository; prints its root, which boxes are given (`box trust`)."""
    from export.release.keys import Keys
    from export.release.repository import init_repository

    print(init_repository(repo, Keys(keys)))


def publish(
    repo: RepoFolder,
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder, or a box's root.")],
    keys: KeysFolder,
    channel: Annotated[str, typer.Option(help="Whose boxes shall have it.")] = "stable",
    percent: Annotated[int, typer.Option(min=0, max=100, help="Of the boxes that may take it now.")] = 100,
    answers: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="What boxes that have tried it said: one that did not take it stops it."),
    ] = None,
    at_least: Annotated[int, typer.Option(min=1, help="With --answers: how many boxes must have taken it.")] = 1,
    as_json: Json = False,
) -> None:
    """Make a bundle a channel's release. To go back, publish the older bundle again."""
    from export.release.keys import Keys
    from export.release.repository import publish as make

    done = make(
        repo,
        bundle,
        Keys(keys),
        channel=channel,
        percent=percent,
        answers=answers,
        at_least=at_least,
        progress_bar=byte_progress_bar,
    )
    _print([done], as_json)


def delegate(
    repo: RepoFolder,
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="Whose releases another key shall sign.")],
    keys: KeysFolder,
    own: Annotated[
        Path, typer.Option("--channel-keys", metavar="OWN", help="The folder that `keys new --channel` made.")
    ],
) -> None:
    """Give a channel a key of its own, or another one: who has it publishes in this channel and in no other."""
    from export.release.keys import Keys
    from export.release.repository import delegate as give

    print(give(repo, channel, Keys(keys), Keys(own)))


def renew(repo: RepoFolder, keys: KeysFolder) -> None:
    """Say that the repository is still the newest, every month; needs the online key alone.

    What lists releases lives a year: past half of it, it is signed again if its key is there too.
    """
    from export.release.keys import Keys
    from export.release.repository import renew as sign

    until = sign(repo, Keys(keys))
    print(f"{repo} is good until {until.date}; before that {until.renewal}")


def rotate(
    repo: RepoFolder,
    keys: KeysFolder,
    new: Annotated[
        Path | None,
        typer.Option("--new-keys", metavar="NEW", help="All keys from now on; default: the same, with a new life."),
    ] = None,
) -> None:
    """Make the next root: a key was lost or stolen, or the root expires (after 2 years). Boxes follow by themselves."""
    from export.release.keys import Keys
    from export.release.repository import rotate as make

    print(make(repo, Keys(keys), Keys(new or keys)))


def check(repo: RepoFolder, as_json: Json = False) -> None:
    """Prove a repository as a new box would, and compare every file."""
    from export.release.check import check as prove

    _print(prove(repo), as_json)


def trust(
    box: BoxRoot,
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="metadata/1.root.json of the repository.")],
) -> None:
    """Have a box trust a repository: it pulls nothing that is not signed by its keys."""
    from export.release.trust import trust as note

    if note(box, root):
        _log(DEVELOPMENT_WARNING)
    print(f"{box} trusts {root}")


def pull(
    box: BoxRoot,
    source: Annotated[str, typer.Option("--from", metavar="REPO", help="A folder (a USB stick), or a URL.")],
    channel: Annotated[str, typer.Option(help="Which release.")] = "stable",
    test: Annotated[
        bool, typer.Option("--selftest/--no-selftest", help="Run the bundle's smoke cases before it is made current.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify, and say what would be fetched.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a box to its channel's release: verify, fetch what it lacks, try it, and only then make it current."""
    from edge_agent.evaluation.selftest import selftest_for
    from export.release.pull import pull as run
    from export.release.sources import open_source

    report = run(
        box,
        open_source(source),
        channel,
        dry_run=dry_run,
        progress_bar=byte_progress_bar,
        selftest=selftest_for(box) if test else None,
    )
    if as_json:
        print(json.dumps(asdict(report)))
        return
    for step in report.steps:
        _log(step)
    fetched = f", {report.fetched_bytes / 1e6:.1f} MB" if report.fetched_bytes else ""
    print(f"release {report.release} of {channel}, bundle {report.bundle[:12]}: {report.state}{fetched}")


def _print(found: list[Published], as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(one) | {"release": one.release.model_dump()} for one in found]))
        return
    for one in found:
        share = "" if one.release.percent == 100 else f" for {one.release.percent} % of the boxes"
        release = f"release {one.release.sequence}, bundle {one.release.bundle[:12]}{share}"
        print(f"{one.channel}: {release}, until {one.until.date}; before that {one.until.renewal}")
    if not found:
        print("no releases yet")


def _log(text: str) -> None:
    print(text, file=sys.stderr)
