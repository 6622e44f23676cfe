"""The table of docs/formats.md: every format under every template, tried with one conversation.

python -m finetune.data.formats.table > docs/formats.md
"""

from __future__ import annotations

from devices.site.tools import ToolCall
from edge_agent.wire.chat_template import END_OF_TURN, ChatTemplate, load_template
from edge_agent.wire.messages import Message
from finetune.data.formats.errors import Unwritable
from finetune.data.formats.schemas import parse_signature
from finetune.data.formats.sources import WRITERS, read_row
from finetune.data.rows import Row

REFUND = Row(
    (),
    (
        Message("system", "You are a support agent."),
        Message("user", "I was charged twice for TXN9982, 50 dollars."),
        Message(
            "assistant",
            "",
            "The person wants a refund of TXN9982.",
            (ToolCall("refund_transaction", {"transaction_id": "TXN9982", "amount": 50.0}),),
        ),
        Message("tool", '{"status": "success", "refund_id": "REF_7712"}'),
        Message("assistant", "I refunded 50.00, reference REF_7712.", "It went through."),
    ),
    (parse_signature("refund_transaction(transaction_id: str, amount: float)"),),
)
ANSWERED = Row((), (*REFUND.messages[:2], Message("assistant", "It was.", "A question.")), REFUND.tools)
CALLED = Row((), (REFUND.messages[1], Message("assistant", "", "", REFUND.messages[2].calls)), REFUND.tools)
TRIED = {"all of it": REFUND, "request, thought, answer": ANSWERED, "request and call": CALLED}
TEXT = """# Formats of conversations

`edgewright data convert SOURCE --to FORMAT --out FILE` reads a file (`.jsonl`, `.json`, `.parquet`), a folder of them
or a Hub id such as `org/name:train`. Each row's format is found by its keys, or named with `--from`. A row that
cannot be read or written goes to `FILE.rejects.jsonl` with its place and the reason; `--strict` stops at the first
one.

Roles are mapped, never passed through. Tools declared in a system text (`- refund(amount: float)`, or Hermes'
`<tools>`) become JSON Schema; calls in text (`call: refund(amount=50.00)`, `<tool_call>`) become calls. So do calls in
brackets (`[Rain Radar(town="Jena")]`) and bare JSON, where a result follows, or where they are the whole reply and
their tools are declared. Calls in turns that follow each other are one turn, with what the assistant said just before.

- **Thoughts** stand in `<think>` or `<thought>`, or after `thought` alone on the first line, `thought:` or `Thought:`.
  Without a call the first line is then the thought and the rest the answer, unless `answer:` marks where it begins.
  Text beside calls becomes the thought, without tags.
- **Results** go to their calls by id, in whatever order they came: OpenAI's `tool_call_id`, the same in the JSON of
  Hermes' `<tool_response>`, and `tool_use_id` in Anthropic's blocks, which are read as `openai`. An id without a call
  is rejected by name; without ids results stay in their order.
- **Turns that are not to be learned**, such as the wrong reply before a correction, are context: `weight: 0`, and
  `loss`, `train`, `training` or `train_on_turn` with `false`. `data show` shows them as not trained. Edgewright's own
  rows have `"trained": false`.
- **Nulls** that Parquet and `datasets` put into tools go out, and those in arguments where the tool's schema does not
  allow null. Without a schema they stay.
- **Types**: in xLAM a parameter with a default, `optional` or `Optional[…]` is not required. `Union` becomes `anyOf`.
  Types that JSON Schema has not (np.ndarray, Tuple, Set, Callable, classes) become an array or no constraint, and
  `data convert` says how many.

Each cell below says what of the conversation "refund" (system text with a tool, request, thought, call, result,
thought, answer) was written in that format, read back the same, and rendered under that template to the same text,
every reply trained to its end. This page is printed by `python -m finetune.data.formats.table`; a test compares.

"""
NOTES = """
What formats have no place for: `alpaca` results of calls, and replies that are not trained; `xlam` all but one request
and its calls; `sharegpt-text`, `alpaca` and `hermes` ids of calls, and the first two bounds, patterns and nested
properties of tools (types, enums, defaults and descriptions stay). `openai` and `trl` number the ids of calls anew.
`hermes` is read as `sharegpt`, whose form it has.
"""


def table() -> str:
    """Return docs/formats.md."""
    names = list(END_OF_TURN)
    lines = [f"| format | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| `{name}` | {' | '.join(held(name, load_template(one)) for one in names)} |" for name in WRITERS]
    return TEXT + "\n".join(lines) + "\n" + NOTES


def held(name: str, template: ChatTemplate) -> str:
    """Return what of the conversation a format holds under a template; "nothing" if none of TRIED."""
    for words, row in TRIED.items():
        try:
            again = read_row(WRITERS[name](row))
        except Unwritable:
            continue
        rendered = [template.render(one.messages, add_generation_prompt=False) for one in (row, again)]
        trained = [part.text for part in template.segments(again.messages) if part.is_trained]
        if again == row and rendered[0] == rendered[1] and all(text.endswith(template.end_of_turn) for text in trained):
            return words
    return "nothing"


if __name__ == "__main__":
    print(table(), end="")
