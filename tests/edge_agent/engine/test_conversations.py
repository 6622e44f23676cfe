"""Several conversations in one engine: each goes on where it was, and shares what another has of its prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.engine.engine import Limits, Request
from edge_agent.engine.llama_cpp_engine import LlamaEngine
from edge_agent.engine.process import EngineProcess, EngineSettings

SYSTEM = "<|im_start|>system\nYou control a small house. Think first, then call tools or answer.<|im_end|>\n"


def turns(*asks: str) -> str:
    said = "".join(f"<|im_start|>user\n{ask}<|im_end|>\n<|im_start|>assistant\nvery well.<|im_end|>\n" for ask in asks)
    return SYSTEM + said


def request(*asks: str, tokens: int = 2) -> Request:
    return Request(turns(*asks).removesuffix("very well.<|im_end|>\n"), None, Limits(tokens))


def test_conversations_that_alternate_are_not_evaluated_twice(starter: Path) -> None:
    first, second = ["turn the kitchen light on now"], ["please close all the blinds in the living room"]
    with LlamaEngine(starter, sequences=2) as engine, LlamaEngine(starter) as alone:
        engine.prime(SYSTEM)
        for more in ("and the lamp", "is it on?", "thank you very much"):
            for asks in (first, second):
                before = len(engine._tokenize(turns(*asks[:-1])))
                made = engine.generate([request(*asks)])[0]
                assert made.reused_tokens >= before - 8
                assert made.token_ids == alone.generate([request(*asks)])[0].token_ids
                asks.append(more)


def test_the_conversation_that_was_used_longest_ago_makes_room(starter: Path) -> None:
    with LlamaEngine(starter, sequences=2) as engine:
        for name in ("one", "two", "three"):
            engine.generate([request(f"this is the long request number {name}, which nobody else makes")])
        kept = engine.generate([request("this is the long request number two, which nobody else makes")])[0]
        assert kept.reused_tokens == kept.prompt_tokens - 1
        lost = engine.generate([request("this is the long request number one, which nobody else makes")])[0]
        assert lost.reused_tokens < lost.prompt_tokens - 8


@pytest.mark.parametrize("sequences", [1, 3])
def test_a_prefill_while_idle_is_used_by_its_conversation(starter: Path, sequences: int) -> None:
    asks = ["turn the kitchen light on", "is the front door locked, and are all the blinds closed?"]
    with LlamaEngine(starter, sequences=sequences) as engine:
        engine.prime(SYSTEM)
        engine.generate([request(asks[0])])
        engine.prefill_idle(turns(asks[0]) + f"<|im_start|>user\n{asks[1][:40]}")
        made = engine.generate([request(*asks)])[0]
    assert made.reused_tokens > made.prompt_tokens - 20


def test_the_text_comes_piece_by_piece(starter: Path) -> None:
    parts: list[str] = []
    with EngineProcess(EngineSettings(starter, sequences=2)) as engine:
        made = engine.generate([request("tell me something long", tokens=8)], parts.append)[0]
        assert parts == sorted(parts, key=len) and all(made.text.startswith(part) for part in parts)
        assert len(parts) >= 2
        again = engine.generate([request("tell me something long", tokens=8)])[0]
    assert again.text == made.text
