"""Own conversations as they are trained: tools in the system text, results as running writes them, calls checked.

Does not guard against: answers that are wrong, or that no person of the owner's would give.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from devices.site.functions import arguments_problem, schema_problem
from edge_agent.grammar.reply_grammar import ANSWER_CHARACTERS
from edge_agent.wire.contract import Contract
from edge_agent.wire.function_text import with_lines
from edge_agent.wire.messages import Message, compact_json, defuse
from finetune.data.encoded_rows import difference
from finetune.data.formats.sources import Rejected, read_source
from finetune.data.rows import Row

Tools = dict[str, dict[str, Any]]  # JSON Schema of the arguments by name


@dataclass(frozen=True)
class OwnRow:
    """A conversation as it is trained, where it stands, and what it declares.

    `is_own` says that its system text is the toolset's, to the byte.
    """

    where: str
    row: Row
    tools: Tools
    is_own: bool

    @property
    def request(self) -> str:
        """What the person says first."""
        return next((message.text for message in self.row.messages if message.role == "user"), "")

    @property
    def called(self) -> tuple[str, ...]:
        """The tools that are called in it, each once."""
        return tuple(sorted({call.name for message in self.row.messages for call in message.calls}))


def read_own_rows(source: str, contract: Contract) -> list[OwnRow]:
    """Return a file's or folder's conversations; one without a system text and tools of its own gets the toolset's.

    Raises:
        UsageError: one cannot be read, calls what it does not declare or as the schema does not allow, or none has the
            toolset's system text; the message has file and row.
    """
    rows = list(_own_rows(source, contract))
    if not rows:
        raise UsageError(f"{source}: no conversation to train on: it is empty")
    if not any(one.is_own for one in rows):
        first = rows[0]
        found = difference(contract.system_text, first.row.messages[0].text)
        raise UsageError(
            f"{first.where}: neither its system text nor any other row's is what the toolset says{found}",
            hint="what is trained must be what runs: `edgewright tools init` writes a toolset of the data",
        )
    return rows


def _own_rows(source: str, contract: Contract) -> Iterator[OwnRow]:
    declared = {tool.name: tool.json_schema() for tool in contract.tools}
    sound: set[str] = set()  # schemas that were checked: most rows have the same
    for where, _, row in read_source(source):
        if isinstance(row, Rejected):
            raise UsageError(f"{where}: {row.reason}", hint="`edgewright data convert` sets such rows aside")
        system = row.messages[0].text if row.messages[0].role == "system" else ""
        rest = row.messages[1:] if system else row.messages
        if not system and not row.tools:
            text, tools = contract.system_text, declared
        else:
            plain = json.loads(json.dumps(row.tools))  # as a file has them
            text = with_lines(system, plain)
            tools = {one["function"]["name"]: one["function"]["parameters"] for one in plain}
        if (written := json.dumps(tools)) not in sound:
            _require_schemas(where, tools)
            sound.add(written)
        _require_calls(where, rest, tools)
        messages = (Message("system", text), *map(_as_it_runs, rest))
        yield OwnRow(where, replace(row, messages=messages, tools=()), tools, text == contract.system_text)


def _as_it_runs(message: Message) -> Message:
    """Return a turn as the agent writes it: results as compact JSON, and no markers in words from outside."""
    if message.role == "assistant":
        return message
    text = message.text
    if message.role == "tool":
        text = _compact(text) or "\n".join(_compact(line) or line for line in text.split("\n"))
    return replace(message, text=defuse(text))


def _compact(text: str) -> str:
    """Return an object or a list in JSON without blanks; "" if a text is neither."""
    try:
        found = json.loads(text)
    except ValueError:
        return ""
    return compact_json(found) if isinstance(found, dict | list) else ""


def _require_schemas(where: str, tools: Tools) -> None:
    for name, schema in tools.items():
        if problem := schema_problem(schema):
            raise UsageError(f"{where}: the schema of {name}: {problem}")


def _require_calls(where: str, messages: Sequence[Message], tools: Tools) -> None:
    for message in messages:
        for call in message.calls:
            if call.name not in tools:
                known = ", ".join(tools) or "none"
                raise UsageError(
                    f"{where}: calls {call.name}, and declares {known}", hint="declare the tool, or take the row out"
                )
            if problem := arguments_problem(tools[call.name], call.arguments):
                raise UsageError(f"{where}: a call of {call.name} does not fit its schema: {problem}")


def unsayable(rows: Sequence[OwnRow]) -> list[str]:
    """Return where answers stand that the grammar of replies has no room for: they are trained, and never said."""
    return [
        one.where
        for one in rows
        for message in one.row.messages
        if message.role == "assistant"
        and not message.calls
        and (len(message.text) > ANSWER_CHARACTERS or any(letter in "<>" for letter in message.text))
    ]


def conversations_in(source: str, contract: Contract) -> Iterator[tuple[str, tuple[Message, ...], Tools]]:
    """Yield a file's conversations for evaluation: where each stands, its turns, and the tools it declares.

    Raises:
        UsageError: as read_own_rows.
    """
    for number, one in enumerate(read_own_rows(source, contract), start=1):
        yield f"{Path(source).stem}-{number}", one.row.messages, one.tools


def write_held_out(path: Path, rows: Sequence[OwnRow]) -> None:
    """Write held-out conversations with the tools that each declares, for evaluation."""
    lines = (json.dumps(one.row.to_dict() | {"schemas": one.tools}, ensure_ascii=False) + "\n" for one in rows)
    path.write_text("".join(lines), encoding="utf-8")
