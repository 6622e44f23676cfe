"""What an agent is said to need is what its engine's process takes, and a little more."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.agent.simulation import Simulation
from edge_agent.engine.autotune import USUAL, Tuning
from edge_agent.engine.gguf_header import require_gguf
from edge_agent.engine.memory_need import CONTROLLER_BYTES, memory_need
from edge_agent.engine.process import EngineProcess, EngineSettings
from edge_agent.wire.chat_template import load_template

LLAMA_1B = {
    "general.architecture": "llama",
    "llama.block_count": 16,
    "llama.embedding_length": 2048,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
    "llama.context_length": 131072,
}


@pytest.mark.parametrize("conversations", [1, 4])
def test_it_is_what_the_engine_takes(starter: Path, conversations: int) -> None:
    simulation = Simulation(load_site("home"), load_template("chatml"))
    context, size = simulation.context_tokens, starter.stat().st_size
    need = memory_need(require_gguf(starter).metadata, size, context, USUAL, conversations)
    settings = EngineSettings(starter, context_tokens=context, sequences=conversations)
    with EngineProcess(settings) as engine:
        engine.prime(simulation.agent(World(simulation.site)).prefix)
        taken = engine.memory_bytes()
    assert 0.7 * taken < need.total - CONTROLLER_BYTES < 1.5 * taken


def test_keys_and_values() -> None:
    """32 KiB a token for Llama 3.2 1B: 16 layers, 8 heads of 64 for keys and as many for values, 2 bytes each."""
    assert memory_need(LLAMA_1B, 0, 1000, USUAL).context == 1000 * 32 * 1024
    assert memory_need(LLAMA_1B, 0, 1000, USUAL, conversations=3).context == 3000 * 32 * 1024
    assert memory_need(LLAMA_1B, 0, 1000, Tuning(kv_type="q8_0")).context == 1000 * 17 * 1024
    short = LLAMA_1B | {"llama.context_length": 500}
    assert memory_need(short, 0, 1000, USUAL).context == 500 * 32 * 1024
