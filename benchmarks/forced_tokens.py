"""Whether forcing tokens changes what a model decides: replies with and without it, on the same held-out cases.

    python -m benchmarks.forced_tokens --model runs/demo/gguf/model-Q8_0.gguf --cases 1000

Forced, tokens that the grammar leaves no choice about are appended without asking the model, spelled as the tokenizer
spells them. Unforced, the model is asked for every token and the grammar only masks. Facts that a thought cites are not
forced on either side. Exit code 5 if fewer than 99.5 % of the cases come to the same tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.engine.llama_cpp_engine import LlamaEngine
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.evaluation.evaluation import CaseOutcome, run_cases
from edge_agent.grammar.grammar import Grammar
from edge_agent.grammar.token_mask import Matcher
from edge_agent.wire.chat_template import load_template
from finetune.data.generator import generate_cases

SEED, GOAL = 7000, 0.995


def mask_only(matcher: Matcher) -> list[int]:
    """Stand in for Matcher.take_forced: say what may come, and take nothing."""
    if matcher._matcher is not None:
        matcher._fill_mask()
        matcher.is_over = matcher._matcher.is_stopped()
    return []


def run(model: Path, site_name: str, template: str, count: int) -> tuple[list[CaseOutcome], float]:
    """Return what came of each case, and the time of all."""
    site = load_site(site_name)
    simulation = CaseSimulation(site, load_template(template))
    with LlamaEngine(model) as engine:
        engine.prime(simulation.agent(World(site)).prefix)
        started_s = time.monotonic()
        outcomes = run_cases(engine, list(generate_cases(site, count, SEED)), simulation.start_turn, batch_size=1)
        return outcomes, time.monotonic() - started_s


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--site", default="home")
    parser.add_argument("--template", default="chatml")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    Grammar.knowing = lambda grammar, known: grammar  # type: ignore[method-assign]
    where = (given.model, given.site, given.template, given.cases)
    forced, forced_s = run(*where)
    Matcher.take_forced = mask_only  # type: ignore[method-assign]
    unforced, unforced_s = run(*where)
    pairs = list(zip(forced, unforced, strict=True))
    tokens = [[[list(reply.token_ids) for reply in one.result.completions] for one in pair] for pair in pairs]
    texts = [[[reply.text for reply in one.result.completions] for one in pair] for pair in pairs]
    differing = [place for place, (one, other) in enumerate(tokens) if one != other]
    share = 1 - len(differing) / len(pairs)
    result: dict[str, Any] = {
        "command": f"python -m benchmarks.forced_tokens --model MODEL --cases {given.cases}",
        "machine": this_machine(),
        "versions": installed_versions(),
        "cases": len(pairs),
        "same_tokens": len(pairs) - len(differing),
        "same_text": sum(one == other for one, other in texts),
        "same_state_after": sum(one.state_after == other.state_after for one, other in pairs),
        "seconds": {"forced": round(forced_s, 1), "unforced": round(unforced_s, 1)},
        "differing": [{"ask": pairs[place][0].case.ask, "forced": texts[place][0], "unforced": texts[place][1]}
                      for place in differing[:20]],
    }  # fmt: skip
    if given.out:
        given.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1, ensure_ascii=False))
    return 0 if share >= GOAL else 5


if __name__ == "__main__":
    sys.exit(main())
