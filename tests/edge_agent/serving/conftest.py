"""A hub over the simulated home, with real broker, journal, agent and grammar; its engine says what a test gives it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from devices.broker.journal import Journal
from devices.site.site import load_site
from edge_agent.agent.session import AgentSession
from edge_agent.agent.simulation import Simulation
from edge_agent.engine.engine import Completion, Request
from edge_agent.grammar.grammar import Grammar
from edge_agent.serving.hub import Hub, open_hub
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.markers import CALL, END_CALL, END_THINK, THINK

ANSWER = f"{THINK} that is a question.{END_THINK}I heard you."


class ScriptedEngine:
    """Says the reply whose key stands in the last request of the prompt, after a call that was carried out ANSWER.

    `hold` keeps every reply back until it is set; `cancel` ends one that is kept back, as the real engine's.
    """

    name = "scripted"

    def __init__(self) -> None:
        self.replies: dict[str, str] = {
            "kitchen light on": call("light_on", device="kitchen_light"),
            "kitchen light off": call("light_off", device="kitchen_light"),
            "unlock": call("lock_unlock", device="front_door"),
            "garage": call("cover_open", device="garage_door"),
        }
        self.prompts: list[str] = []
        self.prefilled: list[str] = []
        self.grammars: list[Grammar | None] = []
        self.hold = threading.Event()
        self.hold.set()
        self._is_cancelled = threading.Event()
        self.is_running = True

    def generate(self, requests: Sequence[Request], on_text: Callable[[str], None] | None = None) -> list[Completion]:
        self._is_cancelled.clear()
        while not self.hold.wait(0.01):
            if self._is_cancelled.is_set():
                return [completion("", "timeout") for _ in requests]
        texts = [self._reply(one.prompt) for one in requests]
        self.prompts += [one.prompt for one in requests]
        self.grammars += [one.grammar for one in requests]
        if on_text:
            for end in range(8, len(texts[0]), 8):
                on_text(texts[0][:end])
        return [completion(text) for text in texts]

    def _reply(self, prompt: str) -> str:
        last = prompt.rpartition("<|im_start|>user\n")[2]
        if "<|im_start|>tool" in last:
            return ANSWER
        asked = last.rpartition("Request: ")[2]
        return next((reply for key, reply in self.replies.items() if key in asked), ANSWER)

    def prefill_idle(self, prompt: str) -> None:
        self.prefilled.append(prompt)

    def cancel(self) -> None:
        self._is_cancelled.set()

    def prime(self, prefix: str) -> bool:
        return True

    def memory_bytes(self) -> int:
        return 1 << 20


def call(tool: str, **arguments: Any) -> str:
    from edge_agent.wire.messages import compact_json

    return f"{THINK} done so.{END_THINK}{CALL}{compact_json({'name': tool, 'arguments': arguments})}{END_CALL}"


def completion(text: str, stop_reason: Any = "end_of_turn") -> Completion:
    return Completion(text, tuple(range(len(text) // 4)), stop_reason, 100, 90, 5, 3, 0, (), 0.01, 0.02)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def hub(engine: ScriptedEngine) -> Iterator[Hub]:
    site = load_site("home")
    runner = AgentSession(
        site,
        Simulation(site, load_template("chatml")),
        engine,  # type: ignore[arg-type]
        Journal(),
        says_yes=False,
        mode="auto",
        is_live=False,
        name="home-tiny",
    )
    problems: list[str] = []
    with open_hub(runner, problems.append, clock_s=8 * 3600) as opened:
        yield opened
        told = len(problems)
    assert len(problems) == told, problems  # none came of closing it
