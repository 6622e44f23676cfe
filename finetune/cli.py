"""The commands `edgewright data …`, `pretrain` and `train`: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from devices.options import Json, Site, TorchDevice

if TYPE_CHECKING:
    from finetune.recipe import Recipe

_Source = Annotated[str, typer.Argument(help="A file or folder of conversations, in any format.")]
_JsonlOut = Annotated[Path, typer.Option("--out", help="The JSONL file to write.")]
_Template = Annotated[str, typer.Option("--template", help="chatml, llama3, mistral, phi3, gemma or alpaca.")]
SHOWN_PROMPT = 240  # characters before a trained part


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    data = typer.Typer(no_args_is_help=True, help="Make and look at training conversations and evaluation cases.")
    data.command("generate")(generate)
    data.command("show")(show)
    data.command("convert")(convert)
    data.command("check")(check)
    data.command("report")(report)
    data.command("pairs")(pairs)
    app.add_typer(data, name="data")
    app.command("pretrain")(pretrain)
    app.command("train")(train)


def register_tools(tools: typer.Typer) -> None:
    """Add this package's command to `edgewright tools`."""
    tools.command("init")(init_tools)


def init_tools(
    source: Annotated[
        str,
        typer.Argument(help="Conversations in any format, OpenAPI, an mcpServers file, or a Python file."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The toolset's .yaml file to write.")],
) -> None:
    """Write a first toolset of what is there; what had to be guessed is marked in it."""
    from devices.durable import write_file
    from devices.errors import UsageError
    from devices.site.site import load_site
    from finetune.data.toolsets.draft import draft_toolset

    if out.suffix not in {".yaml", ".yml"}:
        raise UsageError(f"{out} is no .yaml file", hint="--out tools.yaml")
    if out.exists():
        raise UsageError(
            f"{out} is there already", hint="choose another --out: what you have judged is not overwritten"
        )
    draft = draft_toolset(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, draft.to_yaml().encode())
    load_site(out)
    print(f"{out}: {len(draft.tools)} tools; {draft.guessed} guesses are marked in it, judge them")
    if draft.left_out:
        print(f"left out, as most conversations have no such tool: {', '.join(draft.left_out)}", file=sys.stderr)


def generate(
    out: Annotated[Path | None, typer.Option("--out", help="The JSONL file to write; default: the recipe's.")] = None,
    site: Annotated[
        str | None, typer.Option("--site", help="A shipped site or a .yaml file; default: the recipe's, or home.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("-n", "--count", min=1, help="Conversations, or cases with --held-out.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0)] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", help="Make the data of a recipe, as its `generate` says; options override it.")
    ] = "",
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Make evaluation cases instead of conversations.")
    ] = False,
    renamed: Annotated[
        float | None, typer.Option("--renamed", min=0, max=1, help="Share with other names of tools and arguments.")
    ] = None,
    distractors: Annotated[
        float | None, typer.Option("--distractors", min=0, max=1, help="Share with other devices beside the site's.")
    ] = None,
    shuffled: Annotated[
        float | None, typer.Option("--shuffled", min=0, max=1, help="Share with devices and tools in another order.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make conversations of a site: the same for the same seed, and never with a held-out phrasing."""
    from devices.errors import UsageError
    from devices.site.site import load_site
    from edge_agent.evaluation.cases import CASES, CASES_SEED, write_cases
    from finetune.data.generator import generate_any_site, generate_cases, generate_rows
    from finetune.data.people.asks import load_asks
    from finetune.data.people.intents import CREDIT, sample_intents
    from finetune.data.rows import write_rows
    from finetune.data.tool_variety import Variety
    from finetune.recipe import Generate, load_recipe

    made_for = load_recipe(recipe) if recipe else None
    options = {"rows": count, "seed": seed, "renamed": renamed, "distractors": distractors, "shuffled": shuffled}
    given = {name: value for name, value in options.items() if value is not None}
    wanted = (made_for.generate if made_for else Generate()).model_copy(update=given)
    loaded = load_site(site or (made_for.site if made_for else "home"))
    if out is None and made_for:
        out = Path((made_for.cases or "") if held_out else made_for.data)
    if not out or out == Path():
        raise UsageError("where to?", hint="give --out, or --recipe with a recipe that says it")
    if held_out:
        seed = CASES_SEED if seed is None else seed
        written = write_cases(out, generate_cases(loaded, count or CASES, seed))
    else:
        seed, variety = wanted.seed, Variety(wanted.renamed, wanted.distractors, wanted.shuffled)
        asks = load_asks() if wanted.asks else None
        if asks and wanted.intents:
            lines = sample_intents(wanted.intents, seed)
            asks = asks.joined_by(lines.actions, lines.questions)
            print(f"{lines.count} of {lines.used} intents ({lines.left_out} left out), {CREDIT}", file=sys.stderr)
        if wanted.sites:
            rows = generate_any_site(wanted.rows, seed, wanted.sites, asks)
        else:
            rows = generate_rows(loaded, wanted.rows, seed, variety, wanted.kinds, asks)
        written = write_rows(out, rows)
    result = {"out": str(out), "site": loaded.name, "seed": seed, "cases" if held_out else "conversations": written}
    print(json.dumps(result) if as_json else f"{written} {'cases' if held_out else 'conversations'} in {out}")


def show(
    source: _Source,
    number: Annotated[int, typer.Argument(min=1, help="Which one.")] = 1,
    template: _Template = "chatml",
    base: Annotated[str, typer.Option("--base", help="A model whose ids of special tokens to print too.")] = "",
) -> None:
    """Print a conversation as the model sees it: what is trained in colour, the rest dim."""
    from edge_agent.wire.chat_template import load_template
    from finetune.data.formats.sources import nth_row
    from finetune.data.formats.turns import declared_messages

    where, row = nth_row(source, number)
    segments = load_template(template).segments(declared_messages(row))
    for segment in segments:
        print(_marked(segment.text, segment.is_trained), end="")
    practises = f", practises {', '.join(row.kinds)}" if row.kinds else ""
    print(f"\n{where}{practises}", file=sys.stderr)
    if base:
        from finetune.recipe import path_or_name
        from finetune.training.quantized_base import tokenizer_of

        tokenizer = tokenizer_of(path_or_name(base))
        text = "".join(segment.text for segment in segments)
        for token, token_id in tokenizer.get_added_vocab().items():
            if token in text:
                print(f"{token_id:>8}  {token}", file=sys.stderr)


def _marked(text: str, is_trained: bool) -> str:
    """Return text so that a person sees whether it is trained: in colour on a terminal, else in brackets."""
    if sys.stdout.isatty():
        return f"\x1b[{'32' if is_trained else '2'}m{text}\x1b[0m"
    return f"[trained]{text}[/trained]" if is_trained else text


def convert(
    source: Annotated[str, typer.Argument(help="A file, a folder, or a Hub id such as org/name:train.")],
    out: _JsonlOut,
    to: Annotated[str, typer.Option("--to", help="The format to write; docs/formats.md lists them.")] = "edgewright",
    source_format: Annotated[
        str, typer.Option("--from", help="The format it is in; found out row by row if left out.")
    ] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be read.")] = False,
    rejects: Annotated[
        Path | None, typer.Option("--rejects", help="Where rejected rows go; default: beside --out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read conversations in any format and write them in another; what cannot be is set aside with its reason."""
    from finetune.data.formats.sources import convert_file

    counts = convert_file(source, source_format, to, out, rejects or out.with_suffix(".rejects.jsonl"), strict=strict)
    for one in counts.rejected[:5]:
        print(f"{one.where}: {one.reason}", file=sys.stderr)
    if loose := counts.loose_types:
        shown = ", ".join(f"{kind} {count}" for kind, count in loose.most_common(5))
        print(f"{loose.total()} types that JSON Schema has not became wider ones: {shown}", file=sys.stderr)
    result = {"out": str(out), "rows": counts.rows, "written": counts.written, "rejected": len(counts.rejected)}
    result |= {"loose_types": dict(loose)} if loose else {}
    text = f"{counts.rows} rows: {counts.written} in {out}, {len(counts.rejected)} rejected"
    print(json.dumps(result) if as_json else text)


def report(
    source: _Source,
    out: Annotated[Path, typer.Option("--out", help="The HTML file to write.")],
    template: _Template = "chatml",
    base: Annotated[str, typer.Option("--base", help="A model whose tokens are counted.")] = "starter",
    as_json: Json = False,
) -> None:
    """Write a page about conversations: lengths, kinds, tools, what repeats, and examples."""
    from devices.errors import UsageError
    from edge_agent.wire.chat_template import load_template
    from finetune.data.data_report import make_report, page_of
    from finetune.data.formats.sources import Rejected, read_source
    from finetune.data.rows import write_lines
    from finetune.recipe import path_or_name
    from finetune.training.quantized_base import tokenizer_of

    found = [row for _, _, row in read_source(source)]
    rows = [row for row in found if not isinstance(row, Rejected)]
    if not rows:
        raise UsageError(f"{source} has no conversation that can be read")
    made = make_report(source, rows, load_template(template), tokenizer_of(path_or_name(base)))
    write_lines(out, [page_of(made)])
    unread = f", {len(found) - len(rows)} rows could not be read" if len(rows) < len(found) else ""
    print(json.dumps(made.to_dict()) if as_json else f"{out}: {len(rows)} conversations{unread}")


def pairs(
    model: Annotated[str, typer.Argument(help="A run, a Hugging Face folder or a GGUF file, trained for the site.")],
    out: _JsonlOut,
    site: Site = "home",
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Cases to practise on.")] = 400,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 1,
    device: TorchDevice = "cpu",
    as_json: Json = False,
) -> None:
    """Let a model practise, and write what it said wrongly with what is right: pairs for a recipe with `preference`."""
    from devices.site.site import load_site
    from edge_agent.evaluation.models.placement import Placement
    from finetune.data.preference_pairs import find_pairs
    from finetune.data.rows import write_lines

    found = find_pairs(model, load_site(site), count, seed, Placement(device))
    written = write_lines(out, (pair.to_json() for pair in found))
    text = f"{written} pairs of {count} cases in {out}"
    print(json.dumps({"out": str(out), "cases": count, "pairs": written}) if as_json else text)


def check(
    path: Annotated[Path, typer.Argument(help="Training conversations, as `data generate` and `data convert` write.")],
    cases: Annotated[Path, typer.Option("--cases", help="Evaluation cases that training must not have seen.")],
    site: Site = "home",
    as_json: Json = False,
) -> None:
    """Look for evaluation requests in training data; ends with exit code 5 if there are any."""
    from dataclasses import asdict

    from devices.site.site import load_site
    from edge_agent.evaluation.cases import read_cases
    from finetune.data.leakage import find_leaks, require_no_leaks
    from finetune.data.rows import read_rows

    leaks = find_leaks(read_rows(path), read_cases(cases), load_site(site))
    counts = f"{len(leaks.exact)} stand in {path}, {len(leaks.near)} nearly, {len(leaks.phrasing)} in phrasing"
    print(json.dumps(asdict(leaks)) if as_json else f"of {leaks.cases} cases {counts}")
    require_no_leaks(leaks, str(path))


def pretrain(
    recipe: Annotated[str, typer.Argument(help="`starter`, or a .yaml file.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default: the recipe's.")] = None,
    as_json: Json = False,
) -> None:
    """Make a starter base model from scratch, on conversations over random sites."""
    from edge_agent.progress import ProgressBar
    from finetune.pretraining.pretrain import load_pretrain_recipe
    from finetune.pretraining.pretrain import pretrain as run

    loaded = load_pretrain_recipe(recipe)
    folder = out or Path(loaded.out)
    figures = run(loaded, folder, progress=ProgressBar())
    print(json.dumps(figures) if as_json else folder)


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe that ships with Edgewright, such as home, or a .yaml file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as training.steps=20.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print what it would take and three rows, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune with QLoRA as a recipe says; leaves a run folder."""
    from finetune.recipe import load_recipe
    from finetune.training.train import is_first_process, train_run

    loaded = load_recipe(recipe, overrides or [])
    if dry_run:
        _print_dry_run(loaded, as_json=as_json)
        return
    facts = train_run(loaded, resume=resume)
    if is_first_process():
        print(facts.to_json() if as_json else loaded.out)


def _print_dry_run(recipe: Recipe, *, as_json: bool) -> None:
    from dataclasses import asdict

    from edge_agent.progress import duration_text
    from finetune.training.memory_plan import KEPT, size_text
    from finetune.training.train import dry_run

    found = dry_run(recipe)
    plan = found.plan
    if as_json:
        print(json.dumps(asdict(found)))
        return
    for example in found.examples:
        print("".join(_marked(text if is_trained else _end_of(text), is_trained) for text, is_trained in example))
        print("-" * 40)
    parts = ", ".join(f"{name} {size_text(count)}" for name, count in asdict(plan.memory).items())
    free = f"; {size_text(plan.free)} free beside what is loaded" if plan.free is not None else ""
    print(f"memory  about {size_text(plan.memory.total)}: {parts}{free}")
    if plan.has_plenty:
        print(f"        there is plenty: freed memory is kept, for speed, which takes up to {KEPT} times that")
    print(f"batches at most {plan.batch_tokens} tokens through the layers at once")
    print(f"rows    {found.rows}, the longest of {found.largest_tokens} tokens; {found.dropped} too long and dropped")
    print(f"steps   {plan.steps}, {plan.tokens:,} tokens through the layers")
    print(f"time    about {duration_text(plan.seconds)} here")
    if found.shortage[0]:
        print("does not fit: {}; hint: {}".format(*found.shortage))


def _end_of(text: str) -> str:
    """Return the end of a prompt, with what was left out marked."""
    return text if len(text) <= SHOWN_PROMPT else f"[{len(text) - SHOWN_PROMPT} characters] …{text[-SHOWN_PROMPT:]}"
