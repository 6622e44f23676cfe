"""What a model makes of capital letters: the same held-out cases typed in several ways, spelled as usual and as typed.

    python -m benchmarks.capital_letters runs/demo/bundle --cases 400 --out capital-letters.json

`spelled` is what runs (edge_agent/wire/spelling.py); `as_typed` shows the model every letter as it was typed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from benchmarks.runs import save
from devices.simulation.world import World
from devices.site.site import Site, load_site
from devices.site.tools import tools_of
from edge_agent.agent.simulation import Simulation
from edge_agent.bundle import open_bundle
from edge_agent.engine.llama_cpp_engine import LlamaEngine
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.evaluation.cases import Case
from edge_agent.evaluation.evaluation import run_cases
from edge_agent.evaluation.intervals import paired_difference, share_of
from edge_agent.evaluation.scoring import score_case
from edge_agent.wire.spelling import NO_WORDS, SiteWords, usual_spelling, words_of
from finetune.data.generator import generate_cases

SEED, BATCH = 5000, 8
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def title_case(text: str) -> str:
    """Return a text with every word in a capital."""
    return WORD.sub(lambda word: word.group()[0].upper() + word.group()[1:], text)


def names_in_capitals(text: str, site: Site) -> str:
    """Return a text in which devices are called `Kitchen Light`."""
    names = sorted(words_of(site, tools_of(site)).names, key=len, reverse=True)
    return re.sub(rf"\b(?:{'|'.join(map(re.escape, names))})\b", lambda name: title_case(name.group()), text)


def one_word_in_capitals(text: str) -> str:
    """Return a text in which one word, always the same, is `LOUD`."""
    words = [word.span() for word in WORD.finditer(text)]
    start, end = Random(text).choice(words) if words else (0, 0)
    return text[:start] + text[start:end].upper() + text[end:]


def ways_to_type(site: Site) -> dict[str, Callable[[str], str]]:
    """Return by name how a request may be typed."""
    return {
        "as_it_is": str,
        "ALL CAPITALS": str.upper,
        "Title Case": title_case,
        "all small": str.lower,
        "the Names": lambda text: names_in_capitals(text, site),
        "one WORD": one_word_in_capitals,
    }


def as_typed(text: str, words: SiteWords = NO_WORDS) -> str:
    """Stand in for usual_spelling: leave a request as it is."""
    return text


class Grader:
    """Tells which cases a model gets done; the same case in the same words runs once."""

    def __init__(self, engine: LlamaEngine, simulation: Simulation) -> None:
        self._engine, self._simulation = engine, simulation
        self._words = simulation.contract.words
        self._done: dict[tuple[str, str], bool] = {}

    def done(self, cases: list[Case], spell: Callable[[str, SiteWords], str]) -> list[bool]:
        """Return for each case whether it is done, where requests reach the model spelled in this way."""
        keys = [(case.id, spell(case.ask, self._words)) for case in cases]
        new = [case for case, key in zip(cases, keys, strict=True) if key not in self._done]
        with mock.patch("edge_agent.wire.messages.usual_spelling", spell):
            outcomes = run_cases(self._engine, new, self._simulation.start_turn, batch_size=BATCH)
        for outcome in outcomes:
            self._done[outcome.case.id, spell(outcome.case.ask, self._words)] = score_case(outcome).is_success
        return [self._done[key] for key in keys]


def measure(bundle_path: Path, site: Site, count: int, seed: int) -> dict[str, Any]:
    """Return how many of the cases are done, by the way they are typed, spelled as usual and as typed."""
    bundle = open_bundle(bundle_path)
    bundle.require_site(site)
    cases = list(generate_cases(site, count, seed))
    simulation = CaseSimulation(site, bundle.template)
    figures: dict[str, Any] = {}
    with LlamaEngine(bundle.model_path, adapter=bundle.adapter_path) as engine:
        engine.prime(simulation.agent(World(site)).prefix)
        grader = Grader(engine, simulation)
        for name, type_it in ways_to_type(site).items():
            typed = [replace(case, ask=type_it(case.ask)) for case in cases]
            before, after = grader.done(typed, as_typed), grader.done(typed, usual_spelling)
            figures[name] = {
                "as_typed": asdict(share_of(before)),
                "spelled": asdict(share_of(after)),
                "difference": asdict(paired_difference(before, after)),
            }
            print(f"{name:<14} as typed {sum(before)}, spelled {sum(after)} of {len(cases)}", file=sys.stderr)
    return {"site": site.name, "quant": bundle.manifest.quant, "seed": seed, "cases": len(cases), "typed": figures}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--site", default="home")
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args()
    figures = measure(given.bundle, load_site(given.site), given.cases, given.seed)
    command = " ".join(["python", "-m", "benchmarks.capital_letters", *sys.argv[1:]])
    save({"command": command, "machine": this_machine(), "versions": installed_versions(), **figures}, given.out)


if __name__ == "__main__":
    main()
