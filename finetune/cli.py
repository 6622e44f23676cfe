"""The commands `edgewright data …`, `pretrain` and `train`: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

_Site = Annotated[str, typer.Option("--site", help="A site that ships with Edgewright, or a .yaml file.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    data = typer.Typer(no_args_is_help=True, help="Make and look at training conversations and evaluation cases.")
    data.command("generate")(generate)
    data.command("show")(show)
    app.add_typer(data, name="data")
    app.command("pretrain")(pretrain)
    app.command("train")(train)


def generate(
    out: Annotated[Path, typer.Option("--out", help="The JSONL file to write.")],
    site: _Site = "home",
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Conversations, or cases with --held-out.")] = 6000,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 1,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Make evaluation cases instead of conversations.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Make conversations of a site: the same for the same seed, and never with a held-out phrasing."""
    from devices.site import load_site
    from edge_agent.cases import write_cases
    from finetune.conversations import generate_cases, generate_rows
    from finetune.rows import write_rows

    loaded = load_site(site)
    if held_out:
        written = write_cases(out, generate_cases(loaded, count, seed))
    else:
        written = write_rows(out, generate_rows(loaded, count, seed))
    result = {"out": str(out), "site": loaded.name, "seed": seed, "cases" if held_out else "conversations": written}
    print(json.dumps(result) if as_json else f"{written} {'cases' if held_out else 'conversations'} in {out}")


def show(
    path: Annotated[Path, typer.Argument(help="A file of conversations.")],
    number: Annotated[int, typer.Argument(min=1, help="Which one.")] = 1,
) -> None:
    """Print a conversation as the model sees it: what is trained in colour, the rest dim."""
    from devices.errors import UsageError
    from edge_agent.wire import load_template
    from finetune.rows import read_rows

    rows = list(read_rows(path))
    if number > len(rows):
        raise UsageError(f"{path} has {len(rows)} conversations, not {number}")
    is_terminal = sys.stdout.isatty()
    row = rows[number - 1]
    for segment in load_template("chatml").segments(row.messages):
        if is_terminal:
            print(f"\x1b[{'32' if segment.is_trained else '2'}m{segment.text}\x1b[0m", end="")
        else:
            print(f"[trained]{segment.text}[/trained]" if segment.is_trained else segment.text, end="")
    print(f"\n{path}:{number} of {len(rows)}, practises {', '.join(row.kinds)}", file=sys.stderr)


def pretrain(
    recipe: Annotated[str, typer.Argument(help="`starter`, or a .yaml file.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default: the recipe's.")] = None,
    as_json: _Json = False,
) -> None:
    """Make a starter base model from scratch, on conversations over random sites."""
    from finetune.pretrain import load_pretrain_recipe
    from finetune.pretrain import pretrain as run

    loaded = load_pretrain_recipe(recipe)
    folder = out or Path(loaded.out)
    figures = run(loaded, folder, report=lambda line: print(line, file=sys.stderr, flush=True))
    print(json.dumps(figures) if as_json else folder)


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe that ships with Edgewright, such as home, or a .yaml file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as training.steps=20.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    as_json: _Json = False,
) -> None:
    """Fine-tune with QLoRA as a recipe says; leaves a run folder."""
    from finetune.recipe import load_recipe
    from finetune.train import train_run

    loaded = load_recipe(recipe, overrides or [])
    facts = train_run(loaded, resume=resume)
    print(facts.to_json() if as_json else loaded.out)
