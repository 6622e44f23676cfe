"""Whether speculative decoding pays: the same replies with and without drafts from the prompt and from earlier replies.

    python -m benchmarks.speculative_decoding --model model-Q4_K_M.gguf --vocabularies VOCABULARIES --shape 1b

The model is a trained one, so that what is said, and how often a draft is right, is natural: the first replies to the
home's held-out cases, one at a time. A shape (1b, 3b) has random weights; it is made to say what the trained model
said, token by token of its own vocabulary, so that its times are those of natural replies. Replies must be the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.export import make_shape
from benchmarks.runs import save
from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.engine import llama_cpp_engine as llama_engine
from edge_agent.engine.autotune import Tuning
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.grammar.token_mask import Matcher
from edge_agent.wire.chat_template import load_template
from finetune.data.generator import generate_cases

SEED = 6500
DRAFTS = (0, 4, 8, 15)


def forced_to(texts: Iterator[str]) -> type[Matcher]:
    """Return a matcher that decides for the next of some texts, whatever the model says."""

    class Forced(Matcher):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self._text, self._accepted = next(texts).encode(), list[int]()

        def accept(self, token: int) -> bool:
            self._accepted.append(token)
            return super().accept(token)

        def best(self, logits: Any) -> tuple[int, bool]:
            del logits
            tokenizer = self.vocabulary.tokenizer
            rest = self._text[len(tokenizer.decode_bytes(self._accepted)) :].decode()
            return (tokenizer.tokenize_str(rest)[0] if rest else tokenizer.eos_token), False

    return Forced


def run(model: Path, template: str, cases: int, draft_tokens: int, texts: list[str] | None) -> Any:
    """Return the figures and the texts of the first replies to the cases."""
    site = load_site("home")
    simulation = CaseSimulation(site, load_template(template))
    requests = [next(simulation.start_turn(case)[0]) for case in generate_cases(site, cases, SEED)]
    real = llama_engine.Matcher
    if texts is not None:
        llama_engine.Matcher = forced_to(iter(texts))  # type: ignore[misc]
    try:
        with llama_engine.LlamaEngine(model, tuning=Tuning(draft_tokens=draft_tokens)) as engine:
            engine.prime(simulation.agent(World(site)).prefix)
            started_s = time.perf_counter()
            replies = [engine.generate([request])[0] for request in requests]
            seconds = time.perf_counter() - started_s
    finally:
        llama_engine.Matcher = real  # type: ignore[misc]
    figures = {
        "seconds": round(seconds, 2),
        "decode_s": round(sum(one.decode_s for one in replies), 2),
        "steps": sum(one.model_steps for one in replies),
        "tokens": sum(len(one.token_ids) for one in replies),
        "forced": sum(one.forced_tokens for one in replies),
    }
    return figures, [one.text for one in replies]


def measure(
    model: Path, template: str, cases: int, rounds: int, texts: list[str] | None
) -> tuple[dict[str, Any], list[str]]:
    """Return what each draft length takes, in turns, the quickest of the rounds, and what was said."""
    found: dict[str, dict[str, Any]] = {}
    expected = texts
    for _ in range(rounds):
        for draft_tokens in DRAFTS:
            figures, said = run(model, template, cases, draft_tokens, texts)
            expected = expected or said
            if said != expected:
                raise AssertionError(f"other replies with {draft_tokens} draft tokens")
            before = found.get(str(draft_tokens), figures)
            found[str(draft_tokens)] = min(before, figures, key=lambda one: float(one["seconds"]))
            print(model.name, draft_tokens, figures, file=sys.stderr, flush=True)
    assert expected
    return found, expected


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file of the starter's fine-tune")
    parser.add_argument("--shape", action="append", default=[], choices=["tiny", "1b", "3b"])
    parser.add_argument("--vocabularies", type=Path, help="folder with ggml-vocab-llama-bpe.gguf, for --shape")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    models: dict[str, Any] = {}
    models["starter"], texts = measure(given.model, "chatml", given.cases, given.rounds, None)
    for shape in given.shape:
        with tempfile.TemporaryDirectory() as folder:
            model = make_shape(shape, given.vocabularies, Path(folder))
            models[shape], _ = measure(model, "llama3", given.cases, given.rounds, texts)
    shapes = "".join(f" --shape {shape}" for shape in given.shape)
    result = {"command": f"python -m benchmarks.speculative_decoding --model MODEL --cases {given.cases}{shapes}",
              "machine": this_machine(), "versions": installed_versions(), "models": models}  # fmt: skip
    save(result, given.out)
    print(json.dumps(models, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
