"""Conversations in others' formats: read, written, and the same again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devices.site.site import load_site
from devices.site.tools import ToolCall
from edge_agent.wire.chat_template import END_OF_TURN, load_template
from edge_agent.wire.function_text import signature
from edge_agent.wire.messages import Message
from edgewright import main
from finetune.data.formats.calls import parse_call
from finetune.data.formats.errors import Unreadable, Unwritable
from finetune.data.formats.schemas import make_tool, parse_signature
from finetune.data.formats.sources import READERS, WRITERS, format_of, read_row
from finetune.data.formats.table import table
from finetune.data.generator import generate_rows

REFUND_TEXT = {
    "conversations": [
        {
            "from": "system",
            "value": "You are a support agent.\nTools:\n- refund_transaction(transaction_id: str, amount: float)\n"
            '- find_order(number: int, mode: Literal["short", "long"] = "short"): Find an order.',
        },
        {"from": "human", "value": "I was charged twice for TXN9982, 50 dollars."},
        {
            "from": "gpt",
            "value": "thought\nThe person wants a refund of TXN9982.\n"
            'call: refund_transaction(transaction_id="TXN9982", amount=50.00)',
        },
        {"from": "tool", "value": '{"status": "success", "refund_id": "REF_7712"}'},
        {"from": "gpt", "value": "thought\nIt went through.\nanswer: I refunded 50.00, reference REF_7712."},
    ]
}
PARAMETERS = {
    "type": "object",
    "properties": {"transaction_id": {"type": "string"}, "amount": {"type": "number"}},
    "required": ["transaction_id", "amount"],
}
REFUND = ToolCall("refund_transaction", {"transaction_id": "TXN9982", "amount": 50.0})
# What a format has no place for in the refund conversation.
LACKS = {"alpaca": "results of calls", "xlam": "one request and its calls only"}


def test_the_refund_becomes_structured() -> None:
    row = read_row(REFUND_TEXT)
    assert row.messages == (
        Message("system", "You are a support agent."),
        Message("user", "I was charged twice for TXN9982, 50 dollars."),
        Message("assistant", "", "The person wants a refund of TXN9982.", (REFUND,)),
        Message("tool", '{"status": "success", "refund_id": "REF_7712"}'),
        Message("assistant", "I refunded 50.00, reference REF_7712.", "It went through."),
    )
    assert row.tools[0] == make_tool("refund_transaction", PARAMETERS)
    assert row.tools[1]["function"]["description"] == "Find an order."


def test_the_refund_comes_back_to_the_byte() -> None:
    assert WRITERS["sharegpt-text"](read_row(REFUND_TEXT)) == REFUND_TEXT


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_the_refund_is_the_same_again_from_every_format(name: str) -> None:
    row = read_row(REFUND_TEXT)
    if name in LACKS:
        with pytest.raises(Unwritable, match=LACKS[name]):
            WRITERS[name](row)
        return
    plain = json.loads(json.dumps(WRITERS[name](row)))
    assert read_row(plain) == row
    assert format_of(plain) in READERS


@pytest.mark.parametrize("template", sorted(END_OF_TURN))
def test_the_refund_renders_under_every_template(template: str) -> None:
    row = read_row(REFUND_TEXT)
    text = load_template(template).render(row.messages, add_generation_prompt=False)
    for word in ("support agent", "TXN9982", '"amount":50.00', "REF_7712", "It went through."):
        assert word.replace("50.00", "50.0") in text
    trained = [part.text for part in load_template(template).segments(row.messages) if part.is_trained]
    assert len(trained) == 2 and all(part.endswith(END_OF_TURN[template]) for part in trained)


@pytest.mark.parametrize("name", ["edgewright", "sharegpt", "hermes", "openai", "trl"])
def test_generated_conversations_are_the_same_again(name: str) -> None:
    for row in generate_rows(load_site("home"), 40, 5):
        again = read_row(json.loads(json.dumps(WRITERS[name](row))))
        assert again.messages == row.messages and again.tools == row.tools


OPENAI = {
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather in "}, {"type": "text", "text": "Rome?"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
                {"id": "b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "21"},
        {"role": "tool", "tool_call_id": "b", "content": "12:00"},
        {"role": "assistant", "content": "21 degrees at noon."},
    ],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}],
}
HERMES = {
    "conversations": [
        {
            "from": "system",
            "value": "Tools are in <tools></tools>. <tools> "
            '[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]'
            " </tools> Use them.",
        },
        {"from": "human", "value": "Weather?"},
        {"from": "gpt", "value": "<tool_call>\n{'arguments': {'city': 'Rome'}, 'name': 'weather'}\n</tool_call>"},
        {"from": "tool", "value": '<tool_response>\n{"c": 21}\n</tool_response>'},
        {"from": "gpt", "value": "21 degrees."},
    ]
}
XLAM = {
    "id": 1,
    "query": "Where is Rome?",
    "tools": json.dumps(
        [{"name": "find", "description": "d", "parameters": {"name": {"type": "str", "description": "which"},
          "limit": {"type": "int, optional", "description": "how many", "default": 3},
          "tags": {"type": "List[str], optional", "description": "of"}}}]
    ),
    "answers": '[{"name": "find", "arguments": {"name": "Rome"}}]',
}  # fmt: skip
ALPACA = {"instruction": "Translate.", "input": "Guten Tag", "output": "Good day", "history": [["Hi", "Hello"]]}


def test_openai() -> None:
    row = read_row(OPENAI)
    assert [message.role for message in row.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert row.messages[1].text == "Weather in Rome?" and row.messages[3].text == "21\n12:00"
    assert row.messages[2].calls == (ToolCall("weather", {"city": "Rome"}), ToolCall("time", {}))
    written = WRITERS["openai"](row)
    assert [message.get("tool_call_id") for message in written["messages"]][3:5] == ["call_1", "call_2"]
    assert read_row(written) == row


def said(content: str, *, has_calls: bool, **rest: Any) -> Message:
    """Return the reply that OpenAI's form of it is read as."""
    calls = {"tool_calls": [{"id": "a", "function": {"name": "time", "arguments": "{}"}}]} if has_calls else {}
    reply = {"role": "assistant", "content": content, **calls, **rest}
    return read_row({"messages": [{"role": "user", "content": "Hi"}, reply]}).messages[1]


TIME = (ToolCall("time", {}),)


@pytest.mark.parametrize(
    ("content", "rest", "thought"),
    [
        ("<think>\nI should call.\n</think>", {}, "I should call."),
        ("<think>\nI should call.\n</think>\n\nOne moment.", {}, "I should call.\nOne moment."),
        ("One moment.", {"reasoning_content": "I should call."}, "I should call.\nOne moment."),
        ("<think>I should call.</think>", {"reasoning_content": "I should call.\n"}, "I should call."),
        ("<think>Call.</think>", {"thinking": "I should."}, "I should.\nCall."),
        ("<think>\n\n</think>\n\n", {}, ""),
    ],
)
def test_a_thought_in_tags_beside_calls_loses_its_tags(content: str, rest: dict[str, Any], thought: str) -> None:
    assert said(content, has_calls=True, **rest) == Message("assistant", "", thought, TIME)


def test_a_thought_in_tags_before_an_answer_loses_its_tags() -> None:
    assert said("<think>So.</think>\n\nYes.", has_calls=False) == Message("assistant", "Yes.", "So.")
    assert said("<think>\n\n</think>\n\nYes.", has_calls=False) == Message("assistant", "Yes.")
    both = said("<think>So.</think>Yes.", has_calls=False, reasoning_content="Well.")
    assert both == Message("assistant", "Yes.", "Well.\nSo.")
    tagged_calls = said('<tool_call>{"name": "time"}</tool_call>', has_calls=False, reasoning_content="Well.")
    assert tagged_calls == Message("assistant", "", "Well.", TIME)


def weather(*results: tuple[str | None, str]) -> dict[str, Any]:
    """Return a conversation with calls a (Rome), b (Oslo) and c (Cairo), and these results."""
    calls = [
        {"id": number, "type": "function", "function": {"name": "weather", "arguments": {"city": city}}}
        for number, city in (("a", "Rome"), ("b", "Oslo"), ("c", "Cairo"))
    ]
    tools = [
        {"role": "tool", "content": text} | ({"tool_call_id": number} if number else {}) for number, text in results
    ]
    user, reply = {"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "Warm, cold, hot."}
    return {"messages": [user, {"role": "assistant", "tool_calls": calls}, *tools, reply]}


def test_results_of_parallel_calls_go_to_their_calls_by_id() -> None:
    came = read_row(weather(("c", "35"), ("b", "2"), ("a", "21")))
    assert [call.arguments["city"] for call in came.messages[1].calls] == ["Rome", "Oslo", "Cairo"]
    assert came.messages[2] == Message("tool", "21\n2\n35")
    lines = read_row(weather(("c", "35\ndry"), ("b", "2\nwet"), ("a", "21\nmild")))
    assert [message.text for message in lines.messages[2:5]] == ["21\nmild", "2\nwet", "35\ndry"]
    assert read_row(weather((None, "21"), (None, "2"), (None, "35"))).messages[2].text == "21\n2\n35"
    written = WRITERS["openai"](came)
    assert [(one.get("tool_call_id"), one["content"]) for one in written["messages"][2:5]] == [
        ("call_1", "21"),
        ("call_2", "2"),
        ("call_3", "35"),
    ]
    prompt = {"prompt": written["messages"][:-1], "completion": written["messages"][-1:]}
    prompt["prompt"][2:5] = reversed(prompt["prompt"][2:5])
    assert read_row(prompt) == came


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([("a", "21"), ("b", "2"), ("d", "9")], "result of 'd', and there is no such call"),
        ([("a", "21"), ("b", "2"), ("b", "3")], "two calls or results have the id 'b'"),
        ([("a", "21"), ("b", "2"), (None, "35")], "with and without tool_call_id"),
        ([("a", "21"), ("c", "35")], "the call 'b' has no result"),
    ],
)
def test_results_that_fit_no_call_are_rejected_by_name(results: list[tuple[str | None, str]], reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_row(weather(*results))


def test_hermes_keeps_its_own_prompt() -> None:
    row = read_row(HERMES)
    assert row.messages[0].text == "Tools are in <tools></tools>. <tools> {tools} </tools> Use them."
    assert row.messages[2].calls[0].arguments == {"city": "Rome"} and row.messages[3].text == '{"c": 21}'
    assert read_row(WRITERS["hermes"](row)) == row
    assert "- weather()" in WRITERS["sharegpt-text"](row)["conversations"][0]["value"]


def test_xlam() -> None:
    row = read_row(XLAM)
    parameters = row.tools[0]["function"]["parameters"]
    assert parameters["required"] == ["name"] and parameters["properties"]["limit"]["default"] == 3
    assert parameters["properties"]["tags"] == {"type": "array", "items": {"type": "string"}, "description": "of"}
    assert read_row(WRITERS["xlam"](row)) == row


def test_alpaca() -> None:
    row = read_row(ALPACA)
    assert [message.text for message in row.messages][2] == "Translate.\n\n### Input:\nGuten Tag"
    assert WRITERS["alpaca"](row) == ALPACA


def test_prompt_and_completion_as_text() -> None:
    row = read_row({"prompt": "2 + 2?", "completion": "<think>Add.</think>4"})
    assert row.messages == (Message("user", "2 + 2?"), Message("assistant", "4", "Add."))


@pytest.mark.parametrize(
    ("plain", "reason"),
    [
        ({"text": "a"}, "keys are those of no format: text"),
        ([], "no format: none"),
        ({"conversations": [{"from": "narrator", "value": "x"}]}, "role 'narrator' is unknown"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "no reply"),
        ({"conversations": [{"from": "human", "value": 3}]}, "int, not a string"),
        ({"conversations": "x"}, "turn is no object"),
        ({"conversations": [{"from": "gpt", "value": "<tool_call>{"}]}, "call that does not end"),
        ({"conversations": [{"from": "gpt", "value": "<tool_call>{]</tool_call>"}]}, "not JSON"),
        ({"conversations": [{"from": "gpt", "value": "call: f(1)"}]}, "named arguments"),
        ({"conversations": [{"from": "gpt", "value": "call: f(a=b)"}]}, "no constant"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "part that is no text"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, "two users' turns"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "neither text nor calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}, "f are"),
        ({"messages": [{"role": "assistant", "tool_calls": ["f"]}]}, "call is no object"),
        ({"messages": [{"role": "assistant", "content": "<tool_call>{}</tool_call>",
                        "tool_calls": [{"name": "f"}]}]}, "in its text and in tool_calls"),
        ({"messages": [{"role": "assistant", "content": "<think>I", "tool_calls": [{"name": "f"}]}]}, "not end"),
        ({"instruction": 1, "output": "x"}, "instruction is int"),
        ({"query": "q", "tools": "[", "answers": '[{"name": "f"}]'}, "tools are not JSON"),
        ({"query": "q", "tools": "[]", "answers": "[]"}, "no calls are wanted"),
        ({"prompt": "a", "completion": []}, "both be text"),
        ({"kinds": [], "messages": [{"role": "king", "text": ""}]}, "king"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_row_is_said(plain: Any, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason.replace("[", r"\[")):
        read_row(plain)


@pytest.mark.parametrize(
    "text",
    [
        "a()",
        "a(b: str)",
        'a(b: int, c: float = 1.5, d: list[str] = ["x"], e: bool = True)',
        'a(b: Literal["x", "y"], c: dict = {"k": 1}, d: Any = None)',
    ],
)
def test_a_signature_is_the_same_again(text: str) -> None:
    assert signature(parse_signature(text)) == text


def test_calls_in_lines_have_constants_of_every_kind() -> None:
    call = parse_call("a.b(x=-1, y=true, z=null, s='it\\'s', l=[1, {'k': 2.5}])")
    assert call == ToolCall("a.b", {"x": -1, "y": True, "z": None, "s": "it's", "l": [1, {"k": 2.5}]})


def write(folder: Path, *rows: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def test_the_counts_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, REFUND_TEXT, "{oops", OPENAI, {"a": 1}, ALPACA, XLAM)
    out = tmp_path / "out.jsonl"
    assert main(["data", "convert", str(path), "--to", "openai", "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"out": str(out), "rows": 6, "written": 4, "rejected": 2}
    assert f"{path}:2: not JSON" in printed.err and f"{path}:4: its keys" in printed.err
    assert len(out.read_text().splitlines()) == 4
    rejects = [json.loads(line) for line in (tmp_path / "out.rejects.jsonl").read_text().splitlines()]
    assert [reject["where"] for reject in rejects] == [f"{path}:2", f"{path}:4"] and rejects[1]["row"] == {"a": 1}


def test_strict_stops_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write(tmp_path, REFUND_TEXT, {"a": 1}), tmp_path / "out.jsonl"
    assert main(["data", "convert", str(path), "--out", str(out), "--strict"]) == 2
    assert f"{path}:2: its keys" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([ALPACA], "rows.jsonl: a JSON array, and not one conversation a line"),
        (OPENAI, "rows.jsonl:1: not a conversation: KeyError('kinds')"),
        (3, "rows.jsonl:1: not a conversation: ValueError('int, not an object')"),
        ({"kinds": [], "messages": []}, "rows.jsonl:1: not a conversation: ValueError('no turns')"),
        ({"kinds": [], "messages": [{"role": "user", "text": 3}]}, "rows.jsonl:1: not a conversation: ValueError("),
    ],
)
def test_rows_to_train_on_that_are_none_are_one_line_with_what_helps(
    row: object, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, cases = str(write(tmp_path, row)), tmp_path / "cases.jsonl"
    cases.write_text("", encoding="utf-8")
    for command in (["data", "check", path, "--cases", str(cases)], ["train", "home", f"data={path}"]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert reason in error and "edgewright data convert" in error and "Traceback" not in error


def test_folders_and_lists_and_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "a.json").write_text(json.dumps([ALPACA, ALPACA]))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([XLAM]), tmp_path / "b.parquet")
    out = tmp_path / "out" / "all.jsonl"
    assert main(["data", "convert", str(tmp_path), "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nowhere.jsonl"], "there is no nowhere.jsonl"), (["{path}", "--to", "csv"], "no format is called 'csv'")],
)
def test_a_wrong_source_or_format_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write(tmp_path, ALPACA))
    words = [word.replace("{path}", path) for word in arguments]
    assert main(["data", "convert", *words, "--out", str(tmp_path / "o.jsonl")]) == 2
    assert message in capsys.readouterr().err


def test_the_table_in_the_docs_is_the_one_that_is_made() -> None:
    text = (Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert text == table() and "nothing" not in text
    assert text.count("all of it") == 6 * len(END_OF_TURN)


def test_a_conversation_is_shown_as_the_model_sees_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path, REFUND_TEXT))
    assert main(["data", "show", path, "--template", "llama3"]) == 0
    printed = capsys.readouterr()
    assert "- refund_transaction(transaction_id: str, amount: float)" in printed.out
    assert printed.out.count("[trained]<think>") == 2 and printed.out.count("<|eot_id|>[/trained]") == 2
    assert main(["data", "show", path, "--base", "starter"]) == 0
    assert "<tool_call>" in capsys.readouterr().err
    assert main(["data", "show", path, "2"]) == 2 and "has 1 conversations, not 2" in capsys.readouterr().err
