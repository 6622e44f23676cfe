"""Own conversations: read and checked row by row, split by phrasing, and toolsets drafted of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devices.drivers.http.driver import JsonCall
from devices.errors import UsageError
from devices.site.functions import arguments_problem
from devices.site.site import load_site
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import Contract, contract_of
from edgewright import main
from finetune.data.toolsets.draft import draft_toolset
from finetune.data.toolsets.rows import OwnRow, read_own_rows, unsayable
from finetune.data.toolsets.split import phrasing_of, split_rows
from finetune.data.toolsets.variety import CANNOT, MAKERS, varied_rows
from tests.toolset import conversation, conversations_in, toolset_in

EXAMPLES = Path(__file__).parents[3] / "finetune" / "examples"
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def contract(tmp_path: Path) -> Contract:
    return contract_of(load_site(toolset_in(tmp_path)), load_template("chatml"))


def file_of(folder: Path, *rows: Any) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_rows_are_as_they_run(tmp_path: Path, contract: Contract) -> None:
    (own,) = read_own_rows(file_of(tmp_path, conversation()), contract)
    system, user, _, result, _ = own.row.messages
    assert own.is_own and system.text == contract.system_text
    assert (user.text, result.text) == ("refund TXN9982 please, 50.0", '{"refund_id":"REF_9982"}')
    assert own.called == ("process_refund",) and own.request == user.text


def test_a_row_alone_gets_the_toolset(tmp_path: Path, contract: Contract) -> None:
    row = conversation()
    bare = {"messages": row["messages"][1:]}
    (own,) = read_own_rows(file_of(tmp_path, bare), contract)
    assert own.is_own


def _set(place: int, key: str, value: Any) -> Change:
    def change(row: dict[str, Any]) -> None:
        row["messages"][place][key] = value

    return change


def _call(**changes: Any) -> Change:
    def change(row: dict[str, Any]) -> None:
        row["messages"][2]["tool_calls"][0]["function"] |= changes

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_call(name="pay"), "rows.jsonl:2: calls pay, and declares process_refund, find_transaction"),
        (_call(arguments='{"amount": 5}'), "rows.jsonl:2: a call of process_refund does not fit its schema: 'transac"),
        (_call(arguments="{"), "rows.jsonl:2: "),
        (lambda row: row.pop("tools"), "rows.jsonl:2: calls process_refund, and declares none"),
        (_set(1, "role", "robot"), "rows.jsonl:2: the role 'robot' is unknown"),
        (
            lambda row: row["tools"][0]["function"]["parameters"]["properties"]["amount"].update(type="money"),
            "rows.jsonl:2: the schema of process_refund: properties.amount.type",
        ),
    ],
)
def test_a_bad_row_is_one_line(tmp_path: Path, contract: Contract, change: Change, message: str) -> None:
    bad = conversation()
    change(bad)
    with pytest.raises(UsageError) as caught:
        read_own_rows(file_of(tmp_path, conversation(), bad), contract)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_another_system_text_is_found_before_training(tmp_path: Path, contract: Contract) -> None:
    other = conversation()
    other["messages"][0]["content"] = "You are the refund desk. Be kind."
    with pytest.raises(UsageError, match=r"at character 28 it has 'kind"):
        read_own_rows(file_of(tmp_path, other), contract)
    assert [one.is_own for one in read_own_rows(file_of(tmp_path, other, conversation()), contract)] == [False, True]


def test_answers_that_no_reply_can_be_are_found(tmp_path: Path, contract: Contract) -> None:
    long, tagged = conversation(), conversation()
    long["messages"][4]["content"], tagged["messages"][4]["content"] = "word " * 200, "see <b>here</b>"
    rows = read_own_rows(file_of(tmp_path, conversation(), long, tagged), contract)
    assert [where.rpartition(":")[2] for where in unsayable(rows)] == ["2", "3"]


def test_held_out_phrasings_are_not_trained(tmp_path: Path, contract: Contract) -> None:
    rows = read_own_rows(str(conversations_in(tmp_path, 80)), contract)
    trained, held_out = split_rows(rows, 20)
    assert 10 <= len(held_out) <= 30 and len(trained) + len(held_out) == 80
    known = {phrasing_of(one.request) for one in trained}
    assert not any(phrasing_of(one.request) in known for one in held_out)
    assert phrasing_of("Refund TXN99 please, 5.0") == phrasing_of("refund TXN1 7.5")


@pytest.mark.parametrize("name", ["refunds.json", "travel.jsonl", "shop_database.jsonl"])
def test_the_examples_fit_their_toolsets(name: str) -> None:
    site = load_site(EXAMPLES / f"{Path(name).stem}.yaml")
    rows = read_own_rows(str(EXAMPLES / name), contract_of(site, load_template("chatml")))
    assert len(rows) >= 200 and sum(one.is_own for one in rows) > 0.8 * len(rows) and unsayable(rows) == []
    _, held_out = split_rows(rows, 60)
    assert 55 <= len(held_out) <= 70
    tools = {tool for one in held_out for tool in one.called}
    assert tools >= set(site.functions)


def test_a_draft_of_conversations_fits_them(tmp_path: Path) -> None:
    draft = draft_toolset(str(conversations_in(tmp_path)))
    path = tmp_path / "draft.yaml"
    path.write_text(draft.to_yaml(), encoding="utf-8")
    rows = read_own_rows(str(conversations_in(tmp_path)), contract_of(load_site(path), load_template("chatml")))
    assert all(one.is_own for one in rows)
    assert draft.tools["process_refund"]["risk"] == "confirm" and draft.tools["find_transaction"]["risk"] == "none"
    assert path.read_text(encoding="utf-8").count("# guessed: ") == draft.guessed == 2


def test_undeclared_tools_are_drafted_of_their_calls(tmp_path: Path) -> None:
    row = conversation()
    del row["tools"]
    draft = draft_toolset(file_of(tmp_path, row, row))
    assert draft.tools["process_refund"]["parameters"] == {
        "type": "object",
        "properties": {"transaction_id": {"type": "string"}, "amount": {"type": "number"}},
        "required": ["transaction_id", "amount"],
    }
    assert draft.guesses["process_refund"]["parameters"] == "of 2 calls, as it is nowhere declared"


def test_a_draft_of_a_python_file(tmp_path: Path) -> None:
    source = tmp_path / "my tools.py"
    source.write_text(
        "import nothing_that_exists\ndef pay(to: str, cents: int = 5, *, fast: bool = False, key=None):\n"
        '    """Pays.\n\n    More."""\ndef find(what, most: "int | None" = None): ...\ndef _own(): ...\n'
    )
    draft = draft_toolset(str(source))
    assert (draft.name, list(draft.tools)) == ("my_tools", ["pay", "find"])
    assert draft.tools["pay"]["description"] == "Pays."
    assert draft.tools["pay"]["parameters"] == {
        "type": "object",
        "properties": {
            "to": {"type": "string"},
            "cents": {"type": "integer", "default": 5},
            "fast": {"type": "boolean", "default": False},
        },
        "required": ["to"],
    }
    assert draft.guesses["find"]["parameters"] == "what may be anything: no type is given"


def test_a_draft_of_openapi(tmp_path: Path) -> None:
    source = tmp_path / "shop.yaml"
    source.write_text("""\
openapi: 3.1.0
info: {title: "A <shop>"}
servers: [{url: https://shop.example/api/v1}]
paths:
  /orders/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
    get:
      operationId: getOrder
      summary: Shows an order.
      parameters: [{name: full, in: query, schema: {type: boolean}}]
    post:
      parameters: [{name: dry, in: query, schema: {type: boolean}}]
      requestBody: {content: {application/json: {schema: {$ref: "#/components/schemas/Pay"}}}}
components:
  schemas:
    Pay: {type: object, properties: {amount: {type: number, example: 3}}, required: [amount]}
""")
    draft = draft_toolset(str(source))
    assert draft.executors == {"api": {"type": "http", "url": "https://shop.example"}} and draft.title == "A  shop"
    assert draft.tools["getOrder"]["at"] == {"path": "/api/v1/orders/{id}", "verb": "GET"}
    post = draft.tools["post_orders_id"]
    assert post["parameters"] == {
        "type": "object",
        "properties": {"id": {"type": "integer"}, "dry": {"type": "boolean"}, "amount": {"type": "number"}},
        "required": ["id", "amount"],
    }
    call = JsonCall(**post["at"])
    sent = call.request({"id": 7, "dry": True, "amount": 3}, sends_rest=True)
    assert sent == ("/api/v1/orders/7?dry=true", {"amount": 3})
    path = tmp_path / "tools.yaml"
    path.write_text(draft.to_yaml(), encoding="utf-8")
    assert main(["tools", "check", str(path)]) == 0


def test_init_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tools.yaml"
    assert main(["tools", "init", str(conversations_in(tmp_path)), "--out", str(out)]) == 0
    assert "2 tools; 2 guesses are marked in it" in capsys.readouterr().out
    assert main(["tools", "init", str(conversations_in(tmp_path)), "--out", str(out)]) == 2
    assert main(["tools", "init", str(tmp_path / "nothing.json"), "--out", str(tmp_path / "other.yaml")]) == 2


def test_copies_have_other_tools_and_calls_that_fit_them(tmp_path: Path, contract: Contract) -> None:
    rows = read_own_rows(str(conversations_in(tmp_path, 20)), contract)
    toolset = load_site(tmp_path / "tools.yaml")
    wanted = dict.fromkeys(MAKERS, 0.5)
    copies = varied_rows(rows, toolset, wanted, 1)
    assert copies == varied_rows(rows, toolset, wanted, 1) and len(copies) == 40
    kinds: dict[str, list[OwnRow]] = {}
    for one in copies:
        kinds.setdefault(one.where.rsplit(", ", 1)[1], []).append(one)
        assert not one.is_own and one.row.messages[1] in {row.row.messages[1] for row in rows}
        assert all(f"- {name}(" in one.row.messages[0].text for name in one.tools)
        for call in (call for message in one.row.messages for call in message.calls):
            assert arguments_problem(one.tools[call.name], call.arguments) == ""
    assert {kind: len(some) for kind, some in kinds.items()} == dict.fromkeys(
        ("renamed", "distractors", "shuffled", "irrelevance"), 10
    )
    assert not any({"process_refund", "find_transaction"} & one.tools.keys() for one in kinds["renamed"])
    assert all(len(one.tools) > 3 for one in kinds["distractors"])
    for one in kinds["irrelevance"]:
        assert one.row.messages[-1] == CANNOT and len(one.row.messages) == 3 and "process_refund" not in one.tools
    assert varied_rows(rows, toolset, {}, 1) == []
