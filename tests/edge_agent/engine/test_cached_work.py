"""What an engine's process caches for its next start, and that nothing wrong with it changes an answer."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.agent.simulation import Simulation
from edge_agent.engine.autotune import Tuning
from edge_agent.engine.cache_file import STATE_FILE, WORDS_FILE
from edge_agent.engine.engine import Completion, Request
from edge_agent.engine.llama_cpp_vocabulary import TokenTable
from edge_agent.engine.process import EngineProcess, EngineSettings

SITE = load_site("home")


def replies(completions: list[Completion]) -> list[tuple[int, ...]]:
    return [one.token_ids for one in completions]


def start(starter: Path, folder: Path, identity: str = "one", **more: Any) -> EngineProcess:
    return EngineProcess(EngineSettings(starter, cache=folder, identity=identity, **more))


def test_what_was_evaluated_is_cached(
    starter: Path, tmp_path: Path, simulation: Simulation, requests: list[Request]
) -> None:
    prefix = simulation.agent(World(SITE)).prefix
    with start(starter, tmp_path) as engine:
        assert not engine.prime(prefix)
        expected = replies(engine.generate(requests))
    assert sorted(path.name for path in tmp_path.iterdir()) == [STATE_FILE, WORDS_FILE]
    with start(starter, tmp_path) as engine:
        assert engine.prime(prefix)
        found = engine.generate(requests[-1:] + requests[:-1])
        assert replies(found) == expected[-1:] + expected[:-1]
        assert found[0].reused_tokens >= found[0].prompt_tokens - 1  # the last prompt of before
    for other_prefix, other in ((prefix.replace("Think", "Thing"), {}), (prefix, {"identity": "two"}),
                                (prefix, {"context_tokens": 1024}),
                                (prefix, {"tuning": Tuning(batch_tokens=64)})):  # fmt: skip
        with start(starter, tmp_path, **other) as engine:
            assert not engine.prime(other_prefix)
            assert replies(engine.generate(requests[:1])) == expected[:1]


def test_killed_it_leaves_the_earlier_cache(
    starter: Path, tmp_path: Path, simulation: Simulation, requests: list[Request]
) -> None:
    with start(starter, tmp_path) as engine:
        engine.prime(simulation.agent(World(SITE)).prefix)
        before = (tmp_path / STATE_FILE).read_bytes()
        engine.generate(requests[:1])
        os.kill(engine.pid, signal.SIGKILL)
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_damaged_files_never_change_an_answer(
    starter: Path, tmp_path: Path, simulation: Simulation, requests: list[Request]
) -> None:
    prefix, draw = simulation.agent(World(SITE)).prefix, random.Random(2)
    with start(starter, tmp_path) as engine:
        engine.prime(prefix)
        expected = replies(engine.generate(requests[:2]))
    for name in (STATE_FILE, WORDS_FILE):
        path = tmp_path / name
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        for data in (whole[: draw.randrange(len(whole))], whole[:40], b"", whole + b"x", bytes(changed)):
            path.write_bytes(data)
            with start(starter, tmp_path) as engine:
                assert engine.prime(prefix) == (name == WORDS_FILE)
                assert replies(engine.generate(requests[:2])) == expected


def test_a_folder_that_cannot_be_written_to_is_no_failure(
    starter: Path, tmp_path: Path, simulation: Simulation
) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with start(starter, tmp_path / "file") as engine:
        assert not engine.prime(simulation.agent(World(SITE)).prefix)


def test_a_token_table_is_packed_as_it_is() -> None:
    table = TokenTable([b"", b"a", bytes(range(256)), b"\xff<x>"] * 5, 7, {b"\x01a": [1, 2], b"": []})
    assert TokenTable.unpack(memoryview(table.pack())) == table
