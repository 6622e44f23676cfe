"""Tools that a system text declares: taken out when it is read, put in again when it is written.

As lines (`- refund(amount: float)`) or as Hermes' `<tools>` with JSON. Where they stood anywhere but at the end under
`Tools:`, PLACE stands in the text instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from edge_agent.wire.function_text import PLACE
from finetune.data.formats.calls import json_values
from finetune.data.formats.schemas import Tool, parse_signature, read_tools

HERMES = (  # Source: NousResearch, Hermes-Function-Calling, README, "Prompt Format for Function Calling"
    "You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags."
    " You may call one or more functions to assist with the user query. Don't make assumptions about what values to"
    f" plug into functions. Here are the available tools: <tools> {PLACE} </tools> For each function call return a json"
    " object with function name and arguments within <tool_call></tool_call> XML tags as follows:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-dict>}\n</tool_call>'
)
# A name may have blanks and hyphens where typed arguments show that it is one: not `- Be brief (two lines)`.
_TOOL = r"- (?:\w[\w.]*\(.*\)|\w[\w./ -]*\w\((?:\w+: .*)?\)).*"
_LINE = re.compile(rf"^{_TOOL}$", re.MULTILINE)
_BLOCK = re.compile(rf"(?:^{_TOOL}(?:\n|\Z))+", re.MULTILINE)
_HEADER = re.compile(r"(?:^|\n)Tools:\n\Z")
_TAGS = re.compile(r"(?<=<tools>)(?!</tools>)(.+?)(?=</tools>)", re.DOTALL)


def take_tools(text: str) -> tuple[str, tuple[Tool, ...]]:
    """Return a system text without its tools, and the tools.

    Raises:
        Unreadable: what looks like a tool is none.
    """
    for found in _TAGS.finditer(text):
        if found[1].strip().startswith(("{", "[")):
            rest = f"{text[: found.start()]} {PLACE} {text[found.end() :]}"
            return rest.removesuffix(HERMES).removesuffix("\n\n"), read_tools(json_values(found[1], "tools"))
    block = _BLOCK.search(text)
    if block is None:
        return text, ()
    tools = tuple(parse_signature(line.removeprefix("- ")) for line in _LINE.findall(block[0]))
    before, after = text[: block.start()], text[block.end() :]
    if not after and not block[0].endswith("\n") and _HEADER.search(before):
        return _HEADER.sub("", before), tools
    return before + PLACE + ("\n" if block[0].endswith("\n") else "") + after, tools


def with_tags(text: str, tools: Sequence[Tool]) -> str:
    """Return a system text that declares tools as Hermes' do."""
    if not tools:
        return text
    written = json.dumps(list(tools), ensure_ascii=False)
    if f"<tools> {PLACE} </tools>" in text:
        return text.replace(PLACE, written, 1)
    return "\n\n".join(part for part in (text.replace(PLACE, ""), HERMES.replace(PLACE, written)) if part)
