"""xLAM and APIGen: `{"query", "tools", "answers"}`, the last two JSON in strings: a request and the calls it wants."""

from __future__ import annotations

import json
from typing import Any

from edge_agent.wire.messages import Message
from finetune.data.formats.calls import call_of
from finetune.data.formats.errors import Unreadable, Unwritable
from finetune.data.formats.schemas import arguments_of, read_tools
from finetune.data.formats.turns import make_row
from finetune.data.rows import Row


def read(plain: dict[str, Any]) -> Row:
    """Return the row of one request. Raises Unreadable."""
    answers = plain["answers"]
    if isinstance(answers, str):
        try:
            answers = json.loads(answers)
        except ValueError as error:
            raise Unreadable(f"the answers are not JSON: {error}") from error
    if not isinstance(plain["query"], str) or not isinstance(answers, list):
        raise Unreadable("query is no string, or answers no list")
    if not answers:
        raise Unreadable("no calls are wanted, and there is no answer to give instead")
    calls = tuple(call_of(answer) for answer in answers)
    return make_row([Message("user", plain["query"]), Message("assistant", "", "", calls)], read_tools(plain["tools"]))


def write(row: Row) -> dict[str, Any]:
    """Return a row as one request and its calls.

    Raises:
        Unwritable: it is more, or other, than that.
    """
    if [message.role for message in row.messages] != ["user", "assistant"] or not row.messages[1].calls:
        raise Unwritable("xLAM has one request and its calls only")
    if row.messages[1].thought:
        raise Unwritable("xLAM has no place for a thought")
    if not row.messages[1].is_trained:
        raise Unwritable("xLAM has no mark for a reply that is not trained")
    tools = [
        {key: tool["function"].get(key, "") for key in ("name", "description")} | {"parameters": arguments_of(tool)}
        for tool in row.tools
    ]
    answers = [{"name": call.name, "arguments": call.arguments} for call in row.messages[1].calls]
    return {
        "query": row.messages[0].text,
        "tools": json.dumps(tools, ensure_ascii=False),
        "answers": json.dumps(answers, ensure_ascii=False),
    }
