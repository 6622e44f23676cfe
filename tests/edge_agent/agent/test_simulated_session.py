"""A site's engine has room for its prompts, however many devices there are."""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import pytest

from benchmarks.device_curve import make_site
from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.agent.simulation import Simulation
from edge_agent.engine.engine import CONTEXT_TOKENS, ContextFull
from edge_agent.engine.llama_cpp_engine import LlamaEngine
from edge_agent.wire.chat_template import load_template
from export.convert.gguf_writer import convert
from finetune.recipe import STARTER_FOLDER
from tests.vocabularies import VOCABULARIES, Find, open_vocabulary

TEMPLATE = load_template("chatml")


def test_a_large_site_gets_a_larger_context(tmp_path: Path) -> None:
    gguf, simulation = tmp_path / "starter.gguf", Simulation(make_site(tmp_path, 180), TEMPLATE)
    convert(STARTER_FOLDER, None, gguf, template=TEMPLATE, name="starter", metadata={})
    assert CONTEXT_TOKENS <= Simulation(load_site("home"), TEMPLATE).context_tokens < simulation.context_tokens
    agent = simulation.agent(World(simulation.site))
    with LlamaEngine(gguf) as engine, pytest.raises(ContextFull):
        agent.ask(engine, "turn lamp 7 on")
    with LlamaEngine(gguf, context_tokens=simulation.context_tokens) as engine:
        assert engine.context_tokens <= 4096  # the starter's
        assert agent.ask(engine, "turn lamp 7 on").completions


@pytest.mark.slow
@pytest.mark.parametrize(("source", "vocabulary"), VOCABULARIES)
def test_it_is_enough_in_every_vocabulary(tmp_path: Path, vocabularies: Find, source: str, vocabulary: str) -> None:
    with open_vocabulary(vocabularies(source), vocabulary) as vocab:
        for count in (5, 100, 400):
            simulation = Simulation(make_site(tmp_path, count), TEMPLATE)
            request = next(simulation.agent(World(simulation.site)).run("turn lamp 7 on and all the others off"))
            raw = request.prompt.encode()
            buffer = (llama_cpp.llama_token * len(raw))()
            tokens = llama_cpp.llama_tokenize(vocab, raw, len(raw), buffer, len(buffer), False, True)
            assert 0 < tokens + 512 <= simulation.context_tokens
