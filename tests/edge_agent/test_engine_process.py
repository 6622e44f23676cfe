"""An engine in its own process gives the same replies, and goes on after whatever ends it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices.errors import UnavailableError, UsageError
from devices.simulator import World
from devices.site import load_site
from edge_agent.agent import TurnResult
from edge_agent.engine import Completion, ContextFull, Limits, Request
from edge_agent.engine_process import EngineProcess, EngineSettings
from edge_agent.gguf_header import BadGguf
from edge_agent.kept_file import STATE_FILE, WORDS_FILE
from edge_agent.llama_engine import LlamaEngine
from edge_agent.llama_vocabulary import TokenTable
from edge_agent.simulated import Simulation
from edge_agent.tuning import Tuning
from edge_agent.wire import load_template
from export.convert import convert
from finetune.conversations import generate_cases
from finetune.recipe import STARTER_FOLDER

SITE, TEMPLATE = load_site("home"), load_template("chatml")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter as it ships: it replies in the form that the grammar wants."""
    path = tmp_path_factory.mktemp("starter") / "starter.gguf"
    convert(STARTER_FOLDER, None, path, template=TEMPLATE, name="starter", metadata={})
    return path


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation(SITE, TEMPLATE)


@pytest.fixture(scope="module")
def requests(simulation: Simulation) -> list[Request]:
    return [next(simulation.start_turn(case)[0]) for case in generate_cases(SITE, 6, 3)]


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def engine(model: Path, told: list[str]) -> Iterator[EngineProcess]:
    with EngineProcess(EngineSettings(model), told.append) as engine:
        yield engine


def kill_after(engine: EngineProcess, delay_s: float) -> threading.Timer:
    """Kill the process that an engine has now, a little later."""

    def kill(pid: int) -> None:
        with suppress(ProcessLookupError):  # it was replaced meanwhile
            os.kill(pid, signal.SIGKILL)

    killer = threading.Timer(delay_s, kill, (engine.pid,))
    killer.start()
    return killer


def replies(completions: list[Completion]) -> list[tuple[int, ...]]:
    return [one.token_ids for one in completions]


def test_its_replies_are_the_engine_s_own(model: Path, engine: EngineProcess, requests: list[Request]) -> None:
    with LlamaEngine(model) as own:
        expected = own.generate(requests)
    found = engine.generate(requests)
    assert replies(found) == replies(expected) and found[0].text == expected[0].text
    assert found[1].forced_tokens == expected[1].forced_tokens > 0
    assert engine.memory_bytes() > 2**20
    free = engine.generate([replace(requests[0], grammar=None)])
    assert free[0].stop_reason == "end_of_turn"


def test_its_errors_are_the_engine_s_own(model: Path, engine: EngineProcess, told: list[str], tmp_path: Path) -> None:
    with pytest.raises(ContextFull, match="the context holds"):
        engine.generate([Request("word " * 4000, None)])
    with pytest.raises(UsageError, match="the prompt is empty"):
        engine.generate([Request("", None)])
    (tmp_path / "m.gguf").write_bytes(model.read_bytes()[:1000])
    with EngineProcess(EngineSettings(tmp_path / "m.gguf")) as other, pytest.raises(BadGguf, match=r"m\.gguf"):
        other.prime("x")
    assert not told
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.prime("x")


def test_looking_ahead_leaves_little_to_evaluate_and_changes_no_reply(
    engine: EngineProcess, simulation: Simulation
) -> None:
    asks = ["turn the kitchen light on", "is the kitchen light on?", "set it to 40 percent"]

    def talk(looks_ahead: bool) -> tuple[list[TurnResult], list[int]]:
        agent, results, evaluated = simulation.agent(World(SITE)), [], []
        engine.prime(agent.prefix)
        for ask in asks:
            if looks_ahead:
                engine.look_ahead(agent.ahead())
                assert engine.memory_bytes()  # asked meanwhile, it ends the look-ahead
                engine.look_ahead(agent.ahead())
                time.sleep(1)
            results.append(agent.ask(engine, ask))
            first = results[-1].completions[0]
            evaluated.append(first.prompt_tokens - first.reused_tokens)
        return results, evaluated

    (plain, before), (found, after) = talk(False), talk(True)
    assert [one.answer for one in found] == [one.answer for one in plain]
    assert all(count < 30 for count in after) and sum(after) < sum(before) / 3


def test_killed_while_it_looks_ahead_it_starts_again(
    engine: EngineProcess, requests: list[Request], told: list[str], simulation: Simulation
) -> None:
    expected = replies(engine.generate(requests[:1]))
    engine.look_ahead(simulation.agent(World(SITE)).ahead())
    os.kill(engine.pid, signal.SIGKILL)
    engine.look_ahead(simulation.agent(World(SITE)).ahead())
    assert replies(engine.generate(requests[:1])) == expected
    assert told == ["the engine was ended by SIGKILL; it is started again"]
    engine.look_ahead("word " * 4000)  # does not fit: nothing happens
    assert replies(engine.generate(requests[:1])) == expected


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_ended_between_two_requests_it_starts_again(
    engine: EngineProcess, requests: list[Request], told: list[str], number: signal.Signals, simulation: Simulation
) -> None:
    engine.prime(simulation.agent(World(SITE)).prefix)
    expected, first = engine.generate(requests[:1]), engine.pid
    os.kill(first, number)
    assert replies(engine.generate(requests[:1])) == replies(expected)
    assert told == [f"the engine was ended by {number.name}; it is started again"]
    assert engine.pid != first
    assert engine.generate(requests[:1])[0].reused_tokens > 200  # primed


def test_ended_at_any_moment_the_reply_is_the_same(
    engine: EngineProcess, requests: list[Request], told: list[str]
) -> None:
    expected = replies(engine.generate(requests))
    started_s = time.monotonic()
    engine.generate(requests)
    length_s = time.monotonic() - started_s
    draw = random.Random(5)
    for _ in range(8):
        killer = kill_after(engine, draw.uniform(0, length_s))
        assert replies(engine.generate(requests)) == expected
        killer.join()
    engine.generate(requests)
    assert 1 <= len(told) <= 9


def test_killed_while_it_loads_and_while_it_primes(
    model: Path, requests: list[Request], simulation: Simulation
) -> None:
    for delay_s in (0.0, 0.05, 0.2, 0.4, 0.6):
        told: list[str] = []
        with EngineProcess(EngineSettings(model), told.append) as engine:
            killer = kill_after(engine, delay_s)
            engine.prime(simulation.agent(World(SITE)).prefix)
            killer.join()
            assert engine.generate(requests[:1])[0].stop_reason == "end_of_turn"
            assert len(told) <= 1


def test_killed_in_every_phase_of_a_turn_it_acts_once(engine: EngineProcess, simulation: Simulation) -> None:
    """Killed before, in and after the first reply and the second: the world moves once, as without."""
    case = next(one for one in generate_cases(SITE, 60, 4) if one.kind == "call")

    def work(kill_at: int) -> tuple[object, object, int]:
        turn, world = simulation.start_turn(case)
        request, steps = next(turn), 0
        while True:
            if steps == kill_at:
                os.kill(engine.pid, signal.SIGKILL)
            if steps + 1 == kill_at:
                kill_after(engine, 0.01)
            steps += 2
            try:
                request = turn.send(engine.generate([request])[0])
            except StopIteration as ended:
                result = ended.value
                return world.snapshot(), [(one.device, one.status) for one in result.actions], steps

    expected_state, expected_actions, steps = work(-9)
    assert steps >= 4 and len(expected_actions) == 1  # type: ignore[arg-type]
    for kill_at in range(steps + 1):
        state, actions, _ = work(kill_at)
        assert (state, actions) == (expected_state, expected_actions)
        time.sleep(0.02)


def test_a_process_that_dies_each_time_is_one_clear_error(model: Path, requests: list[Request]) -> None:
    told: list[str] = []
    settings = EngineSettings(model, memory_bytes=120 * 2**20)  # too little to load what it needs
    with EngineProcess(settings, told.append) as engine, pytest.raises((UnavailableError, UsageError)):
        engine.generate(requests[:1])


def test_a_hung_one_is_replaced(
    engine: EngineProcess, requests: list[Request], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.engine_process.GRACE_S", 0.2)
    limited = [replace(requests[0], limits=Limits(requests[0].limits.reply_tokens, 2.0))]
    expected = engine.generate(limited)
    os.kill(engine.pid, signal.SIGSTOP)
    started_s = time.monotonic()
    assert replies(engine.generate(limited)) == replies(expected)
    assert time.monotonic() - started_s < 20
    assert told[0].startswith("the engine hung (no answer for 2 s)")


def test_cancelled_it_ends_at_the_next_step(engine: EngineProcess, simulation: Simulation) -> None:
    prefix = simulation.agent(World(SITE)).prefix
    long = [Request(prefix, None, Limits(reply_tokens=900))]  # it babbles
    threading.Timer(0.3, engine.cancel).start()
    cut = engine.generate(long)[0]
    assert cut.stop_reason == "timeout" or len(cut.token_ids) < 900
    assert engine.generate([replace(long[0], limits=Limits(5))])[0].stop_reason in {"length", "end_of_turn"}


def test_it_has_no_socket_and_ends_with_its_parent(engine: EngineProcess, requests: list[Request]) -> None:
    engine.prime("x")
    status = Path(f"/proc/{engine.pid}/status")
    if status.exists():
        assert "Seccomp:\t2" in status.read_text(encoding="ascii")
    pid = engine.pid
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def start(model: Path, folder: Path, identity: str = "one", **more: Any) -> EngineProcess:
    return EngineProcess(EngineSettings(model, kept=folder, identity=identity, **more))


def test_what_was_evaluated_is_kept(
    model: Path, tmp_path: Path, simulation: Simulation, requests: list[Request]
) -> None:
    prefix = simulation.agent(World(SITE)).prefix
    with start(model, tmp_path) as engine:
        assert not engine.prime(prefix)
        expected = replies(engine.generate(requests))
    assert sorted(path.name for path in tmp_path.iterdir()) == [STATE_FILE, WORDS_FILE]
    with start(model, tmp_path) as engine:
        assert engine.prime(prefix)
        found = engine.generate(requests[-1:] + requests[:-1])
        assert replies(found) == expected[-1:] + expected[:-1]
        assert found[0].reused_tokens >= found[0].prompt_tokens - 1  # the last prompt of before
    for other_prefix, other in ((prefix.replace("Think", "Thing"), {}), (prefix, {"identity": "two"}),
                                (prefix, {"context_tokens": 1024}),
                                (prefix, {"tuning": Tuning(batch_tokens=64)})):  # fmt: skip
        with start(model, tmp_path, **other) as engine:
            assert not engine.prime(other_prefix)
            assert replies(engine.generate(requests[:1])) == expected[:1]


def test_killed_it_leaves_what_was_kept_before(
    model: Path, tmp_path: Path, simulation: Simulation, requests: list[Request]
) -> None:
    with start(model, tmp_path) as engine:
        engine.prime(simulation.agent(World(SITE)).prefix)
        before = (tmp_path / STATE_FILE).read_bytes()
        engine.generate(requests[:1])
        os.kill(engine.pid, signal.SIGKILL)
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_damaged_files_never_change_an_answer(
    model: Path, tmp_path: Path, simulation: Simulation, requests: list[Request]
) -> None:
    prefix, draw = simulation.agent(World(SITE)).prefix, random.Random(2)
    with start(model, tmp_path) as engine:
        engine.prime(prefix)
        expected = replies(engine.generate(requests[:2]))
    for name in (STATE_FILE, WORDS_FILE):
        path = tmp_path / name
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        for data in (whole[: draw.randrange(len(whole))], whole[:40], b"", whole + b"x", bytes(changed)):
            path.write_bytes(data)
            with start(model, tmp_path) as engine:
                assert engine.prime(prefix) == (name == WORDS_FILE)
                assert replies(engine.generate(requests[:2])) == expected


def test_a_folder_that_cannot_be_written_to_is_no_failure(model: Path, tmp_path: Path, simulation: Simulation) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with start(model, tmp_path / "file") as engine:
        assert not engine.prime(simulation.agent(World(SITE)).prefix)


def test_a_token_table_is_packed_as_it_is() -> None:
    table = TokenTable([b"", b"a", bytes(range(256)), b"\xff<x>"] * 5, 7, {b"\x01a": [1, 2], b"": []})
    assert TokenTable.unpack(memoryview(table.pack())) == table
