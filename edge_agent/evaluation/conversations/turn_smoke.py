"""Smoke cases of a toolset's bundle: held-out replies to be made anew, and what its model replied to each at export.

As smoke.py for sites: they tell a broken file or another arithmetic, not a good model from a bad one. Nothing is
carried out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from devices.json_lines import read_json_lines
from devices.site.functions import Function
from devices.site.tools import ToolCall
from edge_agent.bundle import SMOKE, SMOKE_RECORD, Bundle, BundleTampered
from edge_agent.engine.engine import Completion
from edge_agent.engine.process import EngineProcess, EngineSettings
from edge_agent.evaluation.conversations.turns import (
    TurnCase,
    context_tokens_for,
    generate,
    requests_for,
    tools_of_case,
)
from edge_agent.evaluation.smoke import Difference, SelfTest, self_test
from edge_agent.wire.chat_template import ChatTemplate
from edge_agent.wire.messages import Message, message_to_dict, messages_of
from edge_agent.wire.parsing import ToolCalls, parse_reply


@dataclass(frozen=True)
class TurnSmoke:
    """Replies to be made, and beside each the raw text that the model gave at export."""

    cases: tuple[TurnCase, ...]
    record: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write smoke.jsonl and smoke_record.jsonl into a bundle's folder."""
        lines = [json.dumps(_plain(case), ensure_ascii=False) + "\n" for case in self.cases]
        (folder / SMOKE).write_text("".join(lines), encoding="utf-8")
        replies = zip(self.cases, self.record, strict=True)
        lines = [json.dumps({"id": case.id, "reply": reply}, ensure_ascii=False) + "\n" for case, reply in replies]
        (folder / SMOKE_RECORD).write_text("".join(lines), encoding="utf-8")

    def compare(self, made: Sequence[Completion], functions: Mapping[str, Function]) -> SelfTest:
        """Return how replies to the cases, in their order, differ from the record.

        A call that the record does not have is a wrong move, unless the function only asks.
        """
        differing, other_words = [], 0
        for case, recorded, reply in zip(self.cases, self.record, (one.text for one in made), strict=True):
            wanted, got = _calls(case, recorded), _calls(case, reply)
            extra = [call for call in got if call not in wanted and not _only_asks(call, functions)]
            if wanted != got:
                differing.append(Difference(case.id, case.asked, recorded, reply, bool(extra)))
            elif recorded != reply:
                other_words += 1
        return self_test(len(self.cases), differing, other_words)


def read_turn_smoke(bundle: Bundle) -> TurnSmoke | None:
    """Return a bundle's smoke cases with their record; None if it has none. Raises BundleTampered."""
    if bundle.smoke_path is None or bundle.smoke_record_path is None:
        return None
    try:
        cases = [case for _, case in read_json_lines(bundle.smoke_path, _case, "smoke case")]
        record = [one for _, one in read_json_lines(bundle.smoke_record_path, _reply, "record of a smoke case")]
    except UsageError as error:
        raise BundleTampered(str(error)) from error
    if not cases or [case.id for case in cases] != [name for name, _ in record]:
        raise BundleTampered(f"{bundle.smoke_record_path}: not a record of the cases in {SMOKE}")
    return TurnSmoke(tuple(cases), tuple(reply for _, reply in record))


def reply_to(
    settings: EngineSettings,
    cases: Sequence[TurnCase],
    template: ChatTemplate,
    progress: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """Return what a box's engine replies to each case, one by one, under the grammar.

    Args:
        settings: of the engine, whose context is made large enough for the longest case.
        cases: in the order in which they are asked, here and on a box.
        template: the model's.
        progress: called with cases done and cases in all.

    Raises:
        UnavailableError: the engine failed.
    """
    room = max(settings.context_tokens or 0, context_tokens_for(cases, template))
    with EngineProcess(replace(settings, context_tokens=room)) as engine:
        return generate(engine, requests_for(cases, template), 1, progress or (lambda done, total: None))


def _calls(case: TurnCase, reply: str) -> tuple[ToolCall, ...]:
    parsed = parse_reply(reply, tools_of_case(case))
    return parsed.calls if isinstance(parsed, ToolCalls) else ()


def _only_asks(call: ToolCall, functions: Mapping[str, Function]) -> bool:
    return call.name in functions and functions[call.name].risk == "none"


def _plain(case: TurnCase) -> dict[str, Any]:
    messages = [message_to_dict(message) for message in (*case.before, case.expected)]
    return {"id": case.id, "messages": messages, "schemas": dict(case.schemas)}


def _case(plain: dict[str, Any]) -> TurnCase:
    messages: list[Message] = messages_of(plain)
    return TurnCase(str(plain["id"]), tuple(messages[:-1]), messages[-1], dict(plain["schemas"]))


def _reply(plain: dict[str, Any]) -> tuple[str, str]:
    return str(plain["id"]), str(plain["reply"])
