"""Replies as text: where a thought ends and an answer begins, and calls without tags."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devices.site.tools import ToolCall
from edge_agent.wire.messages import Message
from finetune.data.formats.calls import parse_call
from finetune.data.formats.errors import Unreadable, Unwritable
from finetune.data.formats.reply_text import lined, parse_reply_text, tagged
from finetune.data.formats.schemas import make_tool
from finetune.data.formats.sources import WRITERS, read_row
from finetune.data.rows import Row


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("thought\nIt asks for a town.\nJena is in Thuringia.", "It asks for a town.", "Jena is in Thuringia."),
        ("thought\nA town.\nJena.\nIt has a river.", "A town.", "Jena.\nIt has a river."),
        ("Thought\r\nA town.\nJena.", "A town.", "Jena."),
        ("thought:\nA town.\nJena.", "A town.", "Jena."),
        ("thought: A town.\nJena.", "A town.", "Jena."),
        ("Thought: A town.\n\nJena.\n\nAnd Gera.", "A town.", "Jena.\n\nAnd Gera."),
        ("Thought: A town.\nMaybe two.\nAnswer: Jena.", "A town.\nMaybe two.", "Jena."),
        ("<thought>A town.</thought>Jena.", "A town.", "Jena."),
        ("<thinking>\nA town.\nOr two.\n</thinking>\n\nJena.", "A town.\nOr two.", "Jena."),
        ("<think>A town.</think>Thought: is a word.\nYes.", "A town.", "Thought: is a word.\nYes."),
        ("Thoughtful people read.\nMany do.", "", "Thoughtful people read.\nMany do."),
        ("Thought leaders agree.\nMany do.", "", "Thought leaders agree.\nMany do."),
        ("A thought:\nread more.", "", "A thought:\nread more."),
    ],
)
def test_a_thought_ends_where_the_answer_begins(text: str, thought: str, answer: str) -> None:
    assert parse_reply_text(text) == Message("assistant", answer, thought)
    openai = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text}]}
    assert read_row(openai).messages[1] == Message("assistant", answer, thought)


RAIN = ToolCall("Rain Radar", {"town": "Jena", "hours": 2})


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("thought\nI look.\ncall: Rain Radar(town='Jena', hours=2)", "I look."),
        ("thought\nI look.\nThen I say.\ncall: Rain Radar(town='Jena', hours=2)", "I look.\nThen I say."),
        ("thought\ncall: Rain Radar(town='Jena', hours=2)", ""),
        ("Thought: I look.\nCall: Rain Radar(town='Jena', hours=2)", "I look."),
        ('thought\nI look.\n<tool_call>{"name": "Rain Radar", "arguments": {"town": "Jena", "hours": 2}}</tool_call>',
         "I look."),
    ],
)  # fmt: skip
def test_a_thought_before_a_call_has_all_its_lines_and_not_the_word(text: str, thought: str) -> None:
    assert parse_reply_text(text) == Message("assistant", "", thought, (RAIN,))


def test_the_word_before_calls_beside_it_goes_too() -> None:
    call = {"id": "a", "function": {"name": "Rain Radar", "arguments": json.dumps(RAIN.arguments)}}
    said = {"role": "assistant", "content": "thought\nI look.", "tool_calls": [call]}
    row = read_row({"messages": [{"role": "user", "content": "Rain?"}, said]})
    assert row.messages[1] == Message("assistant", "", "I look.", (RAIN,))


def test_a_thought_without_an_answer_is_rejected() -> None:
    with pytest.raises(Unreadable, match="neither text nor calls after its thought"):
        read_row({"instruction": "Rain?", "output": "thought\nI look."})


ODD = ["thought\nI am.\nYes.", "Thought: a word.\nYes.", "call: me", "<think>is a tag", "<thought>is</thought> a tag"]


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("name", ["edgewright", "sharegpt", "sharegpt-text", "hermes", "openai", "alpaca", "trl"])
@pytest.mark.parametrize("thought", ["", "Hm."])
def test_an_answer_that_looks_like_a_thought_stays_an_answer(text: str, name: str, thought: str) -> None:
    row = Row((), (Message("user", "Hi"), Message("assistant", text, thought)))
    assert read_row(json.loads(json.dumps(WRITERS[name](row)))).messages == row.messages


def test_ordinary_answers_are_written_as_they_are() -> None:
    for text in ("Thought leaders agree.", "A thought:\nyes.", "[1, 2]"):
        assert tagged(Message("assistant", text)) == lined(Message("assistant", text)) == text
    with pytest.raises(Unwritable, match="read as a call"):
        lined(Message("assistant", "Yes.", "So:\nCall: me"))
    with pytest.raises(Unwritable, match="</think> in it"):
        tagged(Message("assistant", "Yes.", "a </think> b"))


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("Rain Radar(town='Jena', hours=2)", RAIN),
        (
            "weather.get-rain(town='a, b) c', at=(1, 2))",
            ToolCall("weather.get-rain", {"town": "a, b) c", "at": [1, 2]}),
        ),
        ("f(from='A', class=True)", ToolCall("f", {"from": "A", "class": True})),
        ('f(x=[true, null], y={"a": false},)', ToolCall("f", {"x": [True, None], "y": {"a": False}})),
        ("f()", ToolCall("f", {})),
    ],
)
def test_calls_have_names_and_values_of_every_kind(text: str, call: ToolCall) -> None:
    assert parse_call(text) == call
    assert parse_reply_text(lined(Message("assistant", "", "", (call,)))).calls == (call,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("f(1)", "named arguments"),
        ("f(a=b)", "no constant"),
        ("f(a={1, 2})", "no constant that JSON has"),
        ("f(a='x", "does not end"),
        ("f(a=1", "does not end"),
        ("f(a=1) and more", "not a call"),
        ("(a=1)", "not a call"),
    ],
)
def test_what_is_no_call_is_said(text: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        parse_call(text)


def conversation(*turns: tuple[str, str], **rest: Any) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    return {"conversations": [{"from": names.get(role, role), "value": text} for role, text in turns], **rest}


def asked(text: str, result: str = "tool") -> tuple[Message, ...]:
    """Return the turns of a conversation in which a result follows an assistant's text."""
    return read_row(conversation(("user", "Rain?"), ("assistant", text), (result, "no"), ("assistant", "No."))).messages


SNOW = ToolCall("weather.snow", {"deep": False})


@pytest.mark.parametrize(
    ("text", "thought", "calls"),
    [
        ('[Rain Radar(town="Jena", hours=2)]', "", (RAIN,)),
        ('[Rain Radar(town="Jena", hours=2), weather.snow(deep=False)]', "", (RAIN, SNOW)),
        ('[\n  Rain Radar(town="Jena", hours=2),\n  weather.snow(deep=false),\n]', "", (RAIN, SNOW)),
        ('I look.\n[Rain Radar(town="Jena", hours=2)]', "I look.", (RAIN,)),
        ('thought\nI look.\n[Rain Radar(town="Jena", hours=2)]', "I look.", (RAIN,)),
        ('{"name": "Rain Radar", "parameters": {"town": "Jena", "hours": 2}}', "", (RAIN,)),
        ('<|python_tag|>{"type": "function", "name": "weather.snow", "parameters": {"deep": false}}', "", (SNOW,)),
        ('[TOOL_CALLS] [{"name": "weather.snow", "arguments": {"deep": false}}]', "", (SNOW,)),
        ('{"name": "weather.snow", "arguments": "{\\"deep\\": false}"}; {"name": "f", "arguments": {"deep": 0}}',
         "", (SNOW, ToolCall("f", {"deep": 0}))),
        ('[{"function": {"name": "weather.snow", "arguments": {"deep": false}}}]', "", (SNOW,)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("result", ["tool", "ipython", "environment", "tool_response", "observation"])
def test_calls_without_tags_are_calls_where_a_result_follows(
    text: str, thought: str, calls: tuple[ToolCall, ...], result: str
) -> None:
    assert asked(text, result)[1:3] == (Message("assistant", "", thought, calls), Message("tool", "no"))


@pytest.mark.parametrize("text", ["[1, 2]", "I look (for rain).", "[See (a) and b]", '{"town": "Jena"}', "{oops"])
def test_other_text_before_a_result_is_left_as_it_is(text: str) -> None:
    assert asked(text)[1] == Message("assistant", text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[Rain Radar("Jena")]', "named arguments"),
        ("[Rain Radar(town=Jena)]", "no constant"),
        ('[rain(town="Jena") snow()]', "not a list of calls"),
        ('{"name": "rain", "arguments": {', "the calls are not JSON"),
        ('{"name": "rain", "arguments": 3}', "arguments of rain are no object"),
    ],
)
def test_calls_without_tags_that_cannot_be_read_are_no_text(text: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        asked(text)
    answered = read_row(conversation(("user", "Rain?"), ("assistant", text)))
    assert answered.messages[1] == Message("assistant", text)


def test_without_a_result_calls_are_known_by_the_tools_that_the_row_declares() -> None:
    text = '[Rain Radar(town="Jena", hours=2)]'
    tools = json.dumps([make_tool("Rain Radar", {"type": "object", "properties": {}})])
    assert read_row(conversation(("user", "Rain?"), ("assistant", text), tools=tools)).messages[1].calls == (RAIN,)
    assert read_row(conversation(("user", "Rain?"), ("assistant", text))).messages[1].text == text
    hint = f"You would write:\n{text}"
    assert read_row(conversation(("user", "How?"), ("assistant", hint), tools=tools)).messages[1].text == hint


@pytest.mark.parametrize("role", ["function_call", "tool_call", "tool_calls"])
def test_turns_of_calls_that_follow_each_other_are_one_turn(role: str) -> None:
    turns = [
        ("user", "Rain? Snow?"),
        ("assistant", "I look."),
        (role, '{"name": "rain", "arguments": {"town": "Jena"}}'),
    ]
    turns += [(role, '[{"name": "weather.snow", "arguments": {"deep": false}}]')]
    turns += [("observation", "no"), ("observation", "a bit"), ("assistant", "A bit of snow.")]
    row = read_row(conversation(*turns))
    assert row.messages[1:] == (
        Message("assistant", "", "I look.", (ToolCall("rain", {"town": "Jena"}), SNOW)),
        Message("tool", "no\na bit"),
        Message("assistant", "A bit of snow."),
    )
    for name in ("sharegpt", "openai", "hermes", "sharegpt-text"):
        assert read_row(WRITERS[name](row)).messages == row.messages


def test_a_call_after_a_result_is_a_turn_of_its_own() -> None:
    one, two = '{"name": "rain", "arguments": {}}', '{"name": "snow", "arguments": {}}'
    turns = [("user", "?"), ("tool_call", one), ("tool_response", "no"), ("tool_call", two), ("tool_response", "a bit")]
    row = read_row(conversation(*turns, ("assistant", "Snow.")))
    assert [len(message.calls) for message in row.messages] == [0, 1, 0, 1, 0, 0]
    with pytest.raises(Unreadable, match="a tool_call without a call: 'I look'"):
        read_row(conversation(("user", "?"), ("tool_call", "I look")))


def test_a_tool_whose_name_has_blanks_is_declared_in_lines() -> None:
    schema = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
    tools = (make_tool("Rain Radar", schema), make_tool("weather.get-snow", schema, "Snow."))
    row = Row(
        (), (Message("user", "?"), Message("assistant", "", "", (ToolCall("Rain Radar", {"town": "Jena"}),))), tools
    )
    assert read_row(WRITERS["sharegpt-text"](row)) == row
    rules = "- Be brief (two lines)\n- Use list items(s)"
    plain = conversation(("system", rules), ("user", "Hi"), ("assistant", "Hello."))
    assert read_row(plain).messages[0].text == rules
