"""Cases a minute of the evaluation: one reply at a time against many at once over a shared prefix, on one GGUF file.

    python -m benchmarks.evaluation_speed --model runs/demo/gguf/model-Q8_0.gguf --cases 320
    python -m benchmarks.evaluation_speed --shape 1b --vocabularies VOCABULARIES --cases 24

Both run the same held-out cases of the home with the grammar, each engine in a process of its own. Counted are cases
whose replies are not the same, token for token: several at once multiply matrices of other shapes, so that two tokens
whose logits nearly tie may change places. Random weights (--shape) nearly tie all the time; their thoughts and answers
are cut short, and only their time says something. `highest_ratio` is what nothing can exceed on this machine: if
replies cost nothing, and only the prompts' own tokens were evaluated, in full batches.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.export import make_shape
from benchmarks.runs import in_fresh_process
from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.engine.llama_cpp_engine import LlamaEngine
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.evaluation.evaluation import run_cases
from edge_agent.grammar.grammar import Grammar
from edge_agent.wire.chat_template import load_template
from finetune.data.generator import generate_cases

SEED = 6000


def run(model: Path, template: str, count: int, sequences: int, is_random: bool) -> dict[str, Any]:
    """Return the replies to the cases and the time they took."""
    site = load_site("home")
    simulation = CaseSimulation(site, load_template(template))
    if is_random:
        short = simulation.grammar.lark.replace("{0,400}", "{0,60}").replace("{0,599}", "{0,60}")
        simulation.grammar = Grammar(short.replace("call{1,12}", "call{1,2}"))
    cases = list(generate_cases(site, count, SEED))
    with LlamaEngine(model, sequences=sequences) as engine:
        engine.prime(simulation.agent(World(site)).prefix)
        started_s = time.monotonic()
        outcomes = run_cases(engine, cases, simulation.start_turn, batch_size=sequences)
        seconds = time.monotonic() - started_s
        memory_bytes = engine.memory_bytes()
        prefill_s = prefill_seconds(engine, next(simulation.start_turn(cases[0])[0]).prompt)
    completions = [one for outcome in outcomes for one in outcome.result.completions]
    prompt_tokens = sum(one.prompt_tokens - one.reused_tokens for one in completions)
    replies = [[list(reply.token_ids) for reply in outcome.result.completions] for outcome in outcomes]
    return {"seconds": seconds, "prompt_s": prompt_tokens * prefill_s, "memory_mb": round(memory_bytes / 1e6),
            "replies": replies, "tokens": sum(len(reply) for case in replies for reply in case)}  # fmt: skip


def prefill_seconds(engine: LlamaEngine, text: str) -> float:
    """Return the seconds that a token takes in a full batch, the least that a prompt's tokens cost."""
    tokens, sequence = (engine._tokenize(text) * 2)[:256], engine._sequences[0]
    times = []
    for _ in range(4):
        engine._forget(sequence, 0)
        started_s = time.perf_counter()
        engine._evaluate([(sequence, tokens, [])])
        times.append(time.perf_counter() - started_s)
    return min(times) / len(tokens)


def measure(model: Path, template: str, given: argparse.Namespace, is_random: bool) -> dict[str, Any]:
    """Return both sides' figures on one model, in turns."""
    found: dict[int, list[dict[str, Any]]] = {1: [], given.sequences: []}
    for _ in range(given.rounds):
        for sequences in found:
            one = in_fresh_process(run, model, template, given.cases, sequences, is_random)
            found[sequences].append(one)
            print(f"{sequences} at once: {one['seconds']:.1f} s, {one['tokens']} tokens", file=sys.stderr, flush=True)
    best = {sequences: min(runs, key=lambda one: one["seconds"]) for sequences, runs in found.items()}
    alone, together = best[1], best[given.sequences]
    differing = sum(one != other for one, other in zip(alone["replies"], together["replies"], strict=True))
    return {
        "cases": given.cases,
        "sequences": given.sequences,
        "cases_per_minute": {str(n): round(60 * given.cases / one["seconds"], 1) for n, one in best.items()},
        "memory_mb": {str(n): one["memory_mb"] for n, one in best.items()},
        "tokens": {str(n): one["tokens"] for n, one in best.items()},
        "cases_with_other_replies": differing,
        "prompt_s": round(alone["prompt_s"], 1),
        "highest_ratio": round(alone["seconds"] / alone["prompt_s"], 2),
        "ratio": round(alone["seconds"] / together["seconds"], 2),
    }


def main() -> int:
    """Run the command; exit code 5 if many at once are less than three times as fast on a shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file of the starter's fine-tune")
    parser.add_argument("--template", default="chatml")
    parser.add_argument("--shape", choices=["tiny", "1b", "3b"])
    parser.add_argument("--vocabularies", type=Path)
    parser.add_argument("--cases", type=int, default=320)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    models: dict[str, Any] = {}
    if given.model:
        models["starter"] = measure(given.model, given.template, given, is_random=False)
    if given.shape:
        with tempfile.TemporaryDirectory() as folder:
            model = make_shape(given.shape, given.vocabularies, Path(folder))
            models[given.shape] = measure(model, "llama3", given, is_random=True)
    result = {"command": "python -m benchmarks.evaluation_speed", "machine": this_machine(), "cores": os.cpu_count(),
              "versions": installed_versions(), "models": models}  # fmt: skip
    if given.out:
        before = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {"models": {}}
        result["models"] = before["models"] | models
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(models, indent=1))
    return 0 if all(found["ratio"] >= 3 for name, found in models.items() if name != "starter") else 5


if __name__ == "__main__":
    sys.exit(main())
