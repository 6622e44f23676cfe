"""The demo: every stage of the path on one site, each by the command that a person would type."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from devices.errors import EdgeError, UsageError
from edge_agent.base_models import PACKAGES, base_folder

ASKED = 6  # requests that the demo shows


@dataclass(frozen=True)
class Setting:
    """How the demo goes with one base.

    Attributes:
        recipe: by name.
        rows: of training.
        cases: of the evaluation.
        quants: the last one is bundled.
        asks: lines of an ask file, shown at home.
        at_home: recipe key=value, on that site only.
        rows_at_home: None is `rows`.
    """

    recipe: str
    rows: int
    cases: int
    quants: str
    asks: tuple[str, ...]
    at_home: tuple[str, ...] = ()
    rows_at_home: int | None = None


SETTINGS = {
    "starter": Setting(
        recipe="home",
        rows=11000,
        cases=320,
        quants="F16,Q8_0,Q4_K_M",
        asks=(
            "turn the kitchen light on",
            "set the thermostat to 21 degrees and close the blinds",
            "is the front door locked?",
            "unlock the front door",
            "water the lawn with the sprinkler for 5 minutes",
            "set the thermostat to 35",
        ),
    ),
    "smollm2": Setting(
        recipe="home_smollm2",
        rows=640,
        cases=60,
        quants="Q8_0",
        # An adapter that was tuned on the home for an hour ships; the demo adds some steps. Other sites start from the
        # adapter for any site.
        at_home=(
            "start_from=home_smollm2",
            "training.learning_rate=2.0e-4",
            "training.warmup_steps=2",
            "training.is_compiled=false",
        ),
        rows_at_home=160,
        asks=(
            "is the front door locked?",
            "unlock the front door",
            '["could you put the kitchen light on", "a bit dimmer please", "turn it off again"]',
        ),
    ),
}
WORDS = Path(__file__).parent / "finetune" / "asks" / "held_out" / "home.yaml"


class StageFailed(EdgeError):
    """A stage ended with an error, which it has printed itself."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Where everything goes; what was there is replaced.")] = Path(
        "runs/demo"
    ),
    site: Annotated[str, typer.Option("--site", help="A site that ships with Edgewright, or a .yaml file.")] = "home",
    base: Annotated[str, typer.Option("--base", help=f"One of {', '.join(SETTINGS)}.")] = "smollm2",
    rows: Annotated[int | None, typer.Option(min=1, help="Training conversations; by the base if left out.")] = None,
    cases: Annotated[int | None, typer.Option(min=1, help="Held-out cases; by the base if left out.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Recipe key=value, for train.")] = None,
) -> None:
    """Run the whole path on a site: data, train, export, flash, run, evaluate. About a quarter of an hour."""
    if base not in SETTINGS:
        raise UsageError(f"no demo with the base {base!r}", hint=f"there is {', '.join(SETTINGS)}")
    setting = SETTINGS[base]
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    times: dict[str, float] = {}
    if base in PACKAGES and not base_folder(base).is_dir():
        times["base"] = _stage("base", ["base", "import", base])
    is_home = site == "home"
    at_home, usual_rows = (setting.at_home, setting.rows_at_home or setting.rows) if is_home else ((), setting.rows)
    recipe = [setting.recipe, f"site={site}", f"data={out}/train.jsonl", f"out={out}/run", *at_home, *(overrides or [])]
    rows, cases, quants = rows or usual_rows, cases or setting.cases, setting.quants
    asks = out / "asks.txt"
    here = ["--site", site]
    generate = ["data", "generate", *here]
    stages: list[tuple[str, Sequence[str]]] = [
        ("data", [*generate, "--recipe", setting.recipe, "-n", str(rows), "--out", f"{out}/train.jsonl"]),
        ("cases", [*generate, "--held-out", "-n", str(cases), "--out", f"{out}/cases.jsonl"]),
        ("train", ["train", *recipe]),
        (
            "export",
            ["export", f"{out}/run", "--quant", quants, "--out", f"{out}/bundle", "--work", f"{out}/gguf"],
        ),
        ("flash", ["flash", f"{out}/bundle", f"{out}/box"]),
        ("run", ["run", f"{out}/box", *here, "--ask-file", str(asks)]),
    ]
    for name, arguments in stages:
        times[name] = _stage(name, arguments)
        if name == "cases":
            _choose_asks(setting, site, out / "cases.jsonl", asks)
    (out / "stages.json").write_text(json.dumps(times), encoding="utf-8")
    exported = [f"{out}/gguf/model-{quant}.gguf" for quant in quants.split(",")]
    models = ["starter", f"{out}/run", *exported] if base == "starter" else exported
    where = ["--cases", f"{out}/cases.jsonl", "--out", str(out), "--stage-times", f"{out}/stages.json"]
    times["evaluate"] = _stage("evaluate", ["eval", *models, *here, *where])
    if base != "starter" and site == "home":  # a model of people's words is also asked in another person's
        times["words"] = _stage(
            "words", ["eval", exported[-1], *here, "--cases", str(WORDS), "-n", "120", "--out", f"{out}/words"]
        )
    print("\n" + "\n".join(f"{name:<10} {seconds:7.1f} s" for name, seconds in times.items()))
    print(f"{'total':<10} {sum(times.values()):7.1f} s")
    print(f"\nreport  {out}/report.html\nbundle  {out}/bundle\nbox     {out}/box")
    print(f"talk to it: edgewright run {out}/box --site {site}")


def _choose_asks(setting: Setting, site: str, cases: Path, asks: Path) -> None:
    from edge_agent.evaluation.cases import read_cases

    chosen = setting.asks if site == "home" else [case.ask for case in read_cases(cases)[:ASKED]]
    asks.write_text("".join(f"{ask}\n" for ask in chosen), encoding="utf-8")


def _stage(name: str, arguments: Sequence[str]) -> float:
    print(f"\n== {name}: edgewright {shlex.join(arguments)}", flush=True)
    started_s = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "edgewright", *arguments], check=False).returncode
    if code:
        raise StageFailed(f"the stage {name} failed with exit code {code}", hint="its own message is above")
    return round(time.monotonic() - started_s, 1)
