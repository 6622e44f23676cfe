"""Does the agent ask back where a name fits several devices, and only there?

    python -m benchmarks.naming --out benchmarks/results/naming.json

By hand: ambiguous_requests.yaml. Generated: the requests of the sites that ship, whose names all tell, with the calls
that are right for them; any question is a false one. No model runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.runs import save
from devices.site.site import Site, load_site
from devices.site.tools import Command, commands_of
from edge_agent.agent.naming import Naming
from finetune.data.generator import Stage, draw_plan, random_world

REQUESTS = Path(__file__).parent / "ambiguous_requests.yaml"
SITES = ("home", "greenhouse", "bench_arm", "support", "database")


@dataclass(frozen=True)
class Asked:
    """A request with what a model proposes, the devices among which must be asked, and what is chosen by answers."""

    site: Site
    ask: str
    commands: tuple[Command, ...]
    asks: tuple[str, ...]
    answers: dict[str, tuple[str, ...]]


def load_requests() -> Iterator[Asked]:
    """Yield the requests by hand, each in its home."""
    for number, part in enumerate(yaml.safe_load(REQUESTS.read_text(encoding="utf-8"))):
        plain = {"schema": "site/v1", "name": f"home_{number}", "title": "a home", "devices": part["home"]}
        plain |= {key: part[key] for key in ("floors", "areas") if key in part}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "home.yaml"
            path.write_text(json.dumps(plain), encoding="utf-8")
            site = load_site(path)
        for one in part["requests"]:
            commands = tuple(_command(site, pick) for pick in one["picks"])
            answers = {says: tuple(chosen) for says, chosen in one.get("answers", {}).items()}
            yield Asked(site, one["ask"], commands, tuple(one["asks"]), answers)


def _command(site: Site, words: str) -> Command:
    device, action, *values = words.split()
    schemas = site.devices[device].actions[action].input
    typed = {key: value if schemas[key].enum else int(value) for key, value in zip(schemas, values, strict=True)}
    return Command(device, action, typed)


def problems_with(one: Asked) -> Iterator[str]:
    """Yield what is not as it was written down for a request."""
    naming = Naming(one.site)
    question = naming.question(one.ask, one.commands)
    found = question.candidates if question else ()
    if found != one.asks:
        yield f"{one.ask!r} asks about {found}, not {one.asks}"
    elif question:
        for answer, wanted in one.answers.items():
            if (chosen := naming.answered(question, answer)) != wanted:
                yield f"{answer!r} chooses {chosen}, not {wanted}"


def false_questions(site: Site, requests: int, seed: int) -> Iterator[str]:
    """Yield a line for each generated request with calls: the question that is asked back, or ""."""
    stage, naming, rng = Stage.of(site), Naming(site), Random(seed)
    while requests:
        world = random_world(site, rng)
        plan = draw_plan(stage, world, rng, held_out=rng.random() < 0.5)
        if not plan.steps:
            continue
        requests -= 1
        found = []
        for step in plan.steps:
            calls = [one for one in step if isinstance(one, Command) or "device" in one.arguments]
            commands = [[one] if isinstance(one, Command) else commands_of(one, stage.tools) for one in calls]
            found.append(naming.question(plan.ask, [one for some in commands for one in some]))
        yield next((f"{plan.ask}: {one.text}" for one in found if one), "")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000, help="Of each site.")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    by_hand = list(load_requests())
    result: dict[str, Any] = {
        "requests_by_hand": len(by_hand),
        "answers_by_hand": sum(len(one.answers) for one in by_hand),
    }
    result["problems"] = [problem for one in by_hand for problem in problems_with(one)]
    result["generated"] = {}
    for name in SITES:
        asked = list(false_questions(load_site(name), given.requests, seed=1))
        result["generated"][name] = {"requests": len(asked), "false_questions": [one for one in asked if one]}
    print(json.dumps(result, indent=1, ensure_ascii=False))
    save(result, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
