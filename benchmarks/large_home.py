"""What areas do for a home of 120 devices in 14 areas: tokens of the prompt, time of a call, time of the grammar.

    python -m benchmarks.large_home --model MODEL.gguf --template chatml --out benchmarks/results/large-home.json

The same home (large_home.yaml) with its areas and without, in one run and by turns: without areas each tool lists its
devices and the state has a line for each. `usual` is the home as the file has it, nearly all off; `random` has every
property drawn. As on a box the static prefix is primed; each call comes in a state that is not the last one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.agent_latency import call_grammar
from benchmarks.runs import save
from devices.simulation.world import World
from devices.site.site import Site, load_site
from edge_agent.agent.simulation import Simulation
from edge_agent.engine.engine import Limits, Request
from edge_agent.engine.llama_cpp_engine import LlamaEngine
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.messages import Message, user_message
from finetune.data.generator import random_world

HOME = Path(__file__).parent / "large_home.yaml"
ASK = "turn the shed light on"
CALLS, COMPILES = 6, 5
CHANGED = ("worktop_light", "reading_lamp", "landing_light")  # by turns, before each call


def without_areas(site: Site) -> Site:
    """Return the site as if nobody had said where its devices stand."""
    devices = {name: device.model_copy(update={"area": ""}) for name, device in site.devices.items()}
    return site.model_copy(update={"floors": {}, "areas": {}, "groups": {}, "devices": devices})


class Side:
    """One form of the home, with an engine of its own."""

    def __init__(self, site: Site, model: Path, template: str) -> None:
        self.site, self.template = site, load_template(template)
        self.simulation = Simulation(site, self.template)
        self.engine = LlamaEngine(model, context_tokens=self.simulation.context_tokens)
        self.grammar = call_grammar(self.simulation.contract.tools)
        self.calls_s: list[float] = []
        self.new_tokens: list[int] = []

    def prompt(self, world: World) -> str:
        """Return the whole prompt in a state of the world."""
        contract = self.simulation.contract
        said = user_message(ASK, world.snapshot(), world.clock, contract.words)
        return self.template.render([Message("system", contract.system_text), said], add_generation_prompt=True)

    def tokens(self, world: World) -> int:
        """Return how many tokens that is."""
        return len(self.engine._tokenize(self.prompt(world)))

    def call(self, world: World) -> None:
        """Make one call, and keep its time."""
        started_s = time.perf_counter()
        (reply,) = self.engine.generate([Request(self.prompt(world), self.grammar, Limits(120))])
        self.calls_s.append(time.perf_counter() - started_s)
        self.new_tokens.append(reply.prompt_tokens - reply.reused_tokens)

    def figures(self) -> dict[str, Any]:
        """Return what one form costs, after its calls."""
        times = []
        for _ in range(COMPILES):
            started_s = time.perf_counter()
            self.engine._vocabulary.compile(call_grammar(self.simulation.contract.tools))
            self.engine._vocabulary._compiled.clear()
            times.append(time.perf_counter() - started_s)
        return {
            "prompt_tokens_usual": self.tokens(World(self.site)),
            "prompt_tokens_random": self.tokens(random_world(self.site, Random(1))),
            "system_tokens": len(self.engine._tokenize(self.simulation.contract.system_text)),
            "new_tokens_of_a_call": round(statistics.median(self.new_tokens[1:])),
            "call_s": round(statistics.median(self.calls_s[1:]), 3),
            "grammar_s": round(statistics.median(times), 4),
        }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--template", default="chatml")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    home = load_site(HOME)
    sides = {
        "without areas": Side(without_areas(home), given.model, given.template),
        "areas": Side(home, given.model, given.template),
    }
    for side in sides.values():
        started_s = time.perf_counter()
        side.engine.prime(side.simulation.agent(World(side.site)).prefix)
        print(f"primed in {time.perf_counter() - started_s:.1f} s", file=sys.stderr)
    for number in range(CALLS + 1):
        for side in sides.values():
            world = World(side.site)
            world.state[CHANGED[number % len(CHANGED)]]["on"] = True
            side.call(world)
    found = {name: side.figures() for name, side in sides.items()}
    before, after = found["without areas"], found["areas"]
    result = {
        "command": f"python -m benchmarks.large_home --model {given.model.name} --template {given.template}",
        "machine": this_machine(),
        "versions": installed_versions(),
        "devices": len(home.devices),
        "areas": len(home.areas),
        "forms": found,
        "ratio": {key: round(after[key] / before[key], 3) for key in before},
    }
    save(result, given.out)
    print(result["forms"], result["ratio"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
