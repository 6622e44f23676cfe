"""How a call's time and memory grow with a site: 5, 25, 100 and 300 devices.

    python -m benchmarks.device_curve --model MODEL.gguf --template llama3 --out benchmarks/results/device-curve.json

Sites of lamps only, made for this; one call of one tool under its schema, as in agent_latency.py, each in a state that
is not the last one. The context is as large as the site wants. Prompt and state are evaluated as on a box: the static
prefix is primed, the state of all devices comes anew with each call; or it was evaluated while nobody asked, as
`edgewright run` does in a conversation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.agent_latency import call_grammar
from benchmarks.runs import in_fresh_process
from devices.simulation.world import World
from devices.site.site import Site, load_site
from edge_agent.agent.simulation import Simulation
from edge_agent.engine.engine import Limits, Request
from edge_agent.engine.llama_cpp_engine import LlamaEngine
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.messages import Message, before_request, user_message

SIZES = (5, 25, 100, 300)
CALLS, AHEAD_CALLS = 4, 2
ROOM_TOKENS = 512  # beside the prompt


def make_site(folder: Path, devices: int) -> Site:
    """Return a site of so many lamps."""
    lines = ["schema: site/v1", f"name: lamps_{devices}", f"title: a hall with {devices} lamps", "devices:"]
    lines += [f"  lamp_{number}: {{model: light}}" for number in range(1, devices + 1)]
    path = folder / f"lamps_{devices}.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_site(str(path))


def run(model: Path, template_name: str, devices: int) -> dict[str, Any]:
    """Return the figures of one size."""
    with tempfile.TemporaryDirectory() as folder:
        site = make_site(Path(folder), devices)
    template = load_template(template_name)
    simulation, world = Simulation(site, template), World(site)
    grammar = call_grammar(simulation.contract.tools)
    system, prompts = Message("system", simulation.contract.system_text), []
    for number in range(CALLS + 1):
        state = world.snapshot()
        state["lamp_1"]["on"] = bool(number % 2)
        said = user_message(f"turn lamp {devices - number} on", state, "08:00")
        prompts.append(template.render([system, said], add_generation_prompt=True))
    with LlamaEngine(model, context_tokens=512) as engine:
        room = max(len(engine._tokenize(prompt)) for prompt in prompts) + ROOM_TOKENS
    with LlamaEngine(model, context_tokens=-(-room // 256) * 256) as engine:
        started_s = time.perf_counter()
        engine.prime(simulation.agent(world).prefix)
        prime_s, times, replies = time.perf_counter() - started_s, [], []
        for prompt in prompts:
            started_s = time.perf_counter()
            (reply,) = engine.generate([Request(prompt, grammar, Limits(120))])
            times.append(time.perf_counter() - started_s)
            replies.append(reply)
        after_prefill = []
        for prompt in prompts[1 : AHEAD_CALLS + 1]:
            engine.prefill_idle(before_request(prompt))
            started_s = time.perf_counter()
            engine.generate([Request(prompt, grammar, Limits(120))])
            after_prefill.append(time.perf_counter() - started_s)
        return {
            "devices": devices,
            "prompt_tokens": replies[-1].prompt_tokens,
            "new_tokens": replies[-1].prompt_tokens - replies[-1].reused_tokens,
            "prime_s": round(prime_s, 2),
            "call_s": round(statistics.median(times[1:]), 4),
            "call_after_look_ahead_s": round(statistics.median(after_prefill), 4),
            "steps": round(statistics.mean(reply.model_steps for reply in replies[1:]), 1),
            "memory_mb": round(engine.memory_bytes() / 1e6),
        }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--template", default="chatml")
    parser.add_argument("--size", type=int, action="append")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    figures = []
    for devices in given.size or SIZES:
        figures.append(in_fresh_process(run, given.model, given.template, devices))
        print(figures[-1], flush=True)
    if given.out:
        result = {"command": "python -m benchmarks.device_curve --model MODEL", "machine": this_machine(),
                  "versions": installed_versions(), "model": given.model.name, "sizes": figures}  # fmt: skip
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
