"""An engine in its own process gives the same replies, and goes on after whatever ends it."""

from __future__ import annotations

import io
import itertools
import os
import platform
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from devices.errors import UnavailableError, UsageError
from devices.simulation.world import World
from devices.site.site import load_site
from edge_agent.agent.simulation import Simulation
from edge_agent.agent.turn import TurnResult
from edge_agent.engine.engine import Completion, ContextFull, Limits, Request
from edge_agent.engine.gguf_header import BadGguf
from edge_agent.engine.llama_cpp_engine import LlamaEngine
from edge_agent.engine.process import GRACE_S, EngineProcess, EngineSettings
from edge_agent.engine.worker import receive, send
from edge_agent.grammar.grammar import Grammar
from finetune.data.generator import generate_cases
from tests.edge_agent.engine.dying_worker import MOMENT_VARIABLE

SITE = load_site("home")


@pytest.fixture
def logged() -> list[str]:
    return []


@pytest.fixture
def engine(starter: Path, logged: list[str]) -> Iterator[EngineProcess]:
    with EngineProcess(EngineSettings(starter), logged.append) as engine:
        yield engine


ENDED = "the engine was ended by {}; it is started again"
KILLED = [ENDED.format("SIGKILL")]


@dataclass
class Moments:
    """When the engine's process kills itself; what is logged of it ends that, unless it is to die each time."""

    file: Path
    is_lasting: bool = False
    logged: list[str] = field(default_factory=list)

    def next(self, moment: str) -> None:
        self.logged.clear()
        self.file.write_text(moment, encoding="utf-8")

    def log(self, line: str) -> None:
        self.logged.append(line)
        if not self.is_lasting:
            self.file.unlink()


@pytest.fixture
def moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Moments:
    monkeypatch.setattr("edge_agent.engine.process.WORKER", "tests.edge_agent.engine.dying_worker")
    monkeypatch.setenv(MOMENT_VARIABLE, str(tmp_path / "moment"))
    return Moments(tmp_path / "moment")


@pytest.fixture
def mortal(starter: Path, moments: Moments) -> Iterator[EngineProcess]:
    with EngineProcess(EngineSettings(starter), moments.log) as engine:
        yield engine


def require_ended(pid: int) -> None:
    """Wait until a process has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 60)[0], "it goes on"
    finally:
        os.close(handle)


def replies(completions: list[Completion]) -> list[tuple[int, ...]]:
    return [one.token_ids for one in completions]


def test_its_replies_are_the_engine_s_own(starter: Path, engine: EngineProcess, requests: list[Request]) -> None:
    with LlamaEngine(starter) as own:
        expected = own.generate(requests)
    found = engine.generate(requests)
    assert replies(found) == replies(expected) and found[0].text == expected[0].text
    assert found[1].forced_tokens == expected[1].forced_tokens > 0
    assert engine.memory_bytes() > 2**20
    free = engine.generate([replace(requests[0], grammar=None)])
    assert free[0].stop_reason == "end_of_turn"


def test_its_errors_are_the_engine_s_own(
    starter: Path, engine: EngineProcess, logged: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ContextFull, match="the context holds"):
        engine.generate([Request("word " * 4000, None)])
    with pytest.raises(UsageError, match="the prompt is empty"):
        engine.generate([Request("", None)])
    (tmp_path / "m.gguf").write_bytes(starter.read_bytes()[:1000])
    with EngineProcess(EngineSettings(tmp_path / "m.gguf")) as other, pytest.raises(BadGguf, match=r"m\.gguf"):
        other.prime("x")
    assert not logged
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.prime("x")


def test_prefill_while_idle_leaves_little_to_evaluate_and_changes_no_reply(
    engine: EngineProcess, simulation: Simulation
) -> None:
    asks = ["turn the kitchen light on", "is the kitchen light on?", "set it to 40 percent"]

    def talk(is_prefilled: bool) -> tuple[list[TurnResult], list[int]]:
        agent, results, evaluated = simulation.agent(World(SITE)), [], []
        engine.prime(agent.prefix)
        for ask in asks:
            if is_prefilled:
                engine.prefill_idle(agent.next_prompt_start())
                assert engine.memory_bytes()  # asked meanwhile, it ends the prefill
                engine.prefill_idle(agent.next_prompt_start())
                assert select.select([engine._pipe], [], [], 60)[0]  # its answer: it is done
            results.append(agent.ask(engine, ask))
            first = results[-1].completions[0]
            evaluated.append(first.prompt_tokens - first.reused_tokens)
        return results, evaluated

    (plain, before), (found, after) = talk(False), talk(True)
    assert [one.answer for one in found] == [one.answer for one in plain]
    assert all(count < 30 for count in after) and sum(after) < sum(before) / 3


def test_killed_while_it_is_prefilled_it_starts_again(
    mortal: EngineProcess, requests: list[Request], moments: Moments, simulation: Simulation
) -> None:
    expected, start = replies(mortal.generate(requests[:1])), simulation.agent(World(SITE)).next_prompt_start()
    moments.next("evaluate 2")
    mortal.prefill_idle(start)
    require_ended(mortal.pid)
    mortal.prefill_idle(start)
    assert replies(mortal.generate(requests[:1])) == expected
    assert moments.logged == KILLED
    mortal.prefill_idle("word " * 4000)  # does not fit: nothing happens
    assert replies(mortal.generate(requests[:1])) == expected
    assert moments.logged == KILLED


def test_a_message_that_is_cut_is_none() -> None:
    here, there = socket.socketpair()
    with here, there:
        send(here, {"ok": b"\x00\n{}\n"})
        send(here, {"ok": "two\nlines"})
        whole = there.recv(1000)
    pipe = io.BytesIO(whole)
    assert receive(pipe)["ok"] == b"\x00\n{}\n" and receive(pipe) == {"ok": "two\nlines"}
    for size in range(len(whole) - len('{"ok": "two\\nlines"}\n')):
        with pytest.raises(EOFError):
            receive(io.BytesIO(whole[:size]))
    with pytest.raises(EOFError):
        receive(io.BytesIO(b'{"bytes": %d}\n' % 10**30))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_ended_between_two_requests_it_starts_again(
    engine: EngineProcess, requests: list[Request], logged: list[str], number: signal.Signals, simulation: Simulation
) -> None:
    engine.prime(simulation.agent(World(SITE)).prefix)
    expected, first = engine.generate(requests[:1]), engine.pid
    os.kill(first, number)
    found = engine.generate(requests[:1])
    assert replies(found) == replies(expected)
    assert logged == [ENDED.format(number.name)]
    assert engine.pid != first
    assert found[0].reused_tokens > 200  # primed before it was asked again


def test_killed_at_any_step_of_a_reply_it_makes_the_same(
    mortal: EngineProcess, requests: list[Request], moments: Moments
) -> None:
    expected, kills = replies(mortal.generate(requests[:1])), 0
    for step in (2**power for power in itertools.count()):
        moments.next(f"evaluate {step}")
        assert replies(mortal.generate(requests[:1])) == expected
        if not moments.logged:
            break
        assert moments.logged == KILLED
        kills += 1
    assert kills >= 3
    moments.next("answer 1")  # the reply is made, and lost
    assert replies(mortal.generate(requests[:1])) == expected
    assert moments.logged == KILLED


@pytest.mark.parametrize(
    "moment", ["receive 1", "load 1", "set_up 1", "answer 1", "receive 2", "evaluate 1", "answer 2"]
)
def test_killed_while_it_loads_and_while_it_primes(
    starter: Path, requests: list[Request], simulation: Simulation, moments: Moments, moment: str
) -> None:
    moments.next(moment)
    with EngineProcess(EngineSettings(starter), moments.log) as engine:
        engine.prime(simulation.agent(World(SITE)).prefix)
        assert moments.logged == KILLED
        reply = engine.generate(requests[:1])[0]
        assert reply.stop_reason == "end_of_turn" and reply.reused_tokens > 200  # primed
        assert moments.logged == KILLED


def test_killed_in_every_phase_of_a_turn_it_acts_once(
    mortal: EngineProcess, simulation: Simulation, moments: Moments
) -> None:
    """Killed before, in and after a reply: the world moves once, as without."""
    case = next(one for one in generate_cases(SITE, 60, 4) if one.kind == "call")

    def work(kill_at: int | None, moment: str) -> tuple[object, list[tuple[str, str]], int]:
        turn, world = simulation.start_turn(case)
        request = next(turn)
        for number in itertools.count():
            if number == kill_at:
                moments.next(moment)
            try:
                request = turn.send(mortal.generate([request])[0])
            except StopIteration as ended:
                actions = [(one.device, one.status) for one in ended.value.actions]
                return world.snapshot(), actions, number + 1
        raise AssertionError

    expected_state, expected_actions, count = work(None, "")
    assert count >= 1 and [status for _, status in expected_actions] == ["done"]
    for kill_at in range(count):
        for moment in ("evaluate 1", "evaluate 2", "answer 1", "receive 1"):  # the last: when it has answered
            if moment == "receive 1" and kill_at == count - 1:
                continue  # nobody would find out
            state, actions, _ = work(kill_at, moment)
            assert (state, actions) == (expected_state, expected_actions)
            assert moments.logged == KILLED, (kill_at, moment)


def test_a_process_that_dies_each_time_is_one_clear_error(
    mortal: EngineProcess, requests: list[Request], moments: Moments
) -> None:
    expected = replies(mortal.generate(requests[:1]))
    moments.is_lasting = True
    moments.next("evaluate 1")
    with pytest.raises(UnavailableError, match=r"^the engine was ended by SIGKILL, twice$") as caught:
        mortal.generate(requests[:1])
    assert caught.value.hint == "is there enough memory?" and moments.logged == KILLED
    moments.file.unlink()
    assert replies(mortal.generate(requests[:1])) == expected
    assert moments.logged == KILLED  # a third one was started with the error


def test_too_little_memory_is_one_clear_error(starter: Path, requests: list[Request], logged: list[str]) -> None:
    settings = EngineSettings(starter, memory_bytes=120 * 2**20)  # less than it has before it loads anything
    with (
        EngineProcess(settings, logged.append) as engine,
        pytest.raises(
            UnavailableError, match=r"^too little memory to read the model .*starter\.gguf: .*allocate memory$"
        ),
    ):
        engine.generate(requests[:1])
    assert not logged


def test_a_hung_one_is_replaced(
    engine: EngineProcess, requests: list[Request], logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = [replace(requests[0], limits=Limits(requests[0].limits.reply_tokens, 600.0))]
    expected, receive, asked = engine.generate(limited), engine._receive, list[float | None]()

    def impatient(limit_s: float | None) -> Any:
        asked.append(limit_s)
        return receive(0.2 if len(asked) == 1 else limit_s)

    monkeypatch.setattr(engine, "_receive", impatient)
    os.kill(engine.pid, signal.SIGSTOP)
    woken = threading.Timer(60, os.kill, (engine.pid, signal.SIGCONT))  # so that this fails, and does not hang
    woken.start()
    assert replies(engine.generate(limited)) == replies(expected)
    woken.cancel()
    assert logged == ["the engine hung (no answer for 0 s); it is started again"]
    assert asked[0] == 600 + GRACE_S


BABBLE = Request("hello", Grammar("start: /[a-z ]{5000,6000}/\n"), Limits(reply_tokens=900))  # it cannot end by itself


def test_cancelled_a_reply_ends_at_the_next_step(starter: Path) -> None:
    class Cancelled(LlamaEngine):
        steps = 0

        def _evaluate(self, *args: Any) -> Any:
            self.steps += 1
            if self.steps == 5:
                self.cancel()
            return super()._evaluate(*args)

    with Cancelled(starter) as engine:
        cut, whole = (engine.generate([BABBLE])[0] for _ in range(2))
    assert (cut.stop_reason, cut.model_steps, len(cut.token_ids)) == ("timeout", 5, 5)
    assert (whole.stop_reason, len(whole.token_ids)) == ("length", 900)
    assert whole.token_ids[:5] == cut.token_ids


def test_cancelled_from_another_thread_it_ends_its_reply_and_no_other(engine: EngineProcess) -> None:
    short = [replace(BABBLE, limits=Limits(reply_tokens=20))]
    expected, has_ended = replies(engine.generate(short)), threading.Event()

    def cancel() -> None:
        while not has_ended.wait(0.01):  # again and again: the first ones may come before the request
            engine.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    cut = engine.generate([BABBLE])[0]
    has_ended.set()
    canceller.join()
    assert cut.stop_reason == "timeout" and len(cut.token_ids) < 900
    assert replies(engine.generate(short)) == expected


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}, reason="no filter for this system"
)
def test_it_is_confined_once_it_has_loaded(engine: EngineProcess) -> None:
    engine.prime("x")
    assert "Seccomp:\t2" in Path(f"/proc/{engine.pid}/status").read_text(encoding="ascii")


def test_it_ends_when_it_is_closed(engine: EngineProcess) -> None:
    engine.prime("x")
    pid = engine.pid
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PARENT = """
import sys
from pathlib import Path
from edge_agent.engine.process import GRACE_S, EngineProcess, EngineSettings
engine = EngineProcess(EngineSettings(Path(sys.argv[1])))
engine.prime("x")
print(engine.pid, flush=True)
sys.stdin.read()
"""


EVALUATING = """
import os, time
from edge_agent.evaluation.models.model import Model
from edge_agent.evaluation.models.placement import Placement, alone
def work(model):
    print(os.getpid(), flush=True)
    time.sleep(600)
if __name__ == "__main__":
    alone(Model("slow", "quant", "slow.gguf"), Placement(), work)
"""


@pytest.mark.parametrize("kind", ["engine", "evaluation"])
def test_it_ends_with_its_parent(kind: str, starter: Path, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT if kind == "engine" else EVALUATING)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, script, str(starter)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)  # it is there
        parent.kill()
        require_ended(pid)
