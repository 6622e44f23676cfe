"""Toolset files: what they say, and each mistake in one line with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.drivers.registry import check_site, require_drivers
from devices.errors import UsageError
from devices.site.functions import CALL, arguments_problem
from devices.site.site import load_site
from devices.site.tools import Command, ToolCall, call_of, commands_of, tools_of
from devices.yaml_file import read_yaml
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from tests.toolset import toolset_in


def changed(folder: Path, old: str, new: str) -> Path:
    path = toolset_in(folder)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def test_a_toolset_is_a_site_with_functions(tmp_path: Path) -> None:
    site = load_site(toolset_in(tmp_path))
    assert site.is_toolset and not site.devices and list(site.callees) == ["process_refund", "find_transaction"]
    refund = tools_of(site)[0]
    told = refund.openai()["function"]
    assert (told["name"], told["description"]) == ("process_refund", "Pays a customer back.")
    assert told["parameters"]["required"] == ["transaction_id", "amount"] and "limits" not in str(told)
    call = ToolCall("process_refund", {"transaction_id": "T", "amount": 5})
    assert commands_of(call, tools_of(site)) == [Command("process_refund", CALL, {"transaction_id": "T", "amount": 5})]
    assert call_of(Command("process_refund", CALL, dict(call.arguments)), tools_of(site)) == call


def test_its_system_text_declares_the_tools(tmp_path: Path) -> None:
    contract = contract_of(load_site(toolset_in(tmp_path)), load_template("chatml"))
    assert contract.system_text == (
        "You are the refund desk. Be brief.\nTools:\n"
        '- process_refund(transaction_id: str, amount: float, note: str = ""): Pays a customer back.\n'
        "- find_transaction(transaction_id: str)"
    )
    assert contract.words is None


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"transaction_id": "T"}, "'amount' is a required property"),
        ({"transaction_id": "T", "amount": "5"}, "amount: '5' is not of type 'number'"),
        ({"transaction_id": "T", "amount": -1}, "amount: -1 is less than the minimum of 0"),
        (
            {"transaction_id": "T", "amount": 1, "to": "me"},
            "Additional properties are not allowed ('to' was unexpected)",
        ),
        ({"transaction_id": "T", "amount": 500}, ""),  # a limit is the broker's, not the schema's
    ],
)
def test_arguments_fit_the_schema(tmp_path: Path, given: dict[str, object], problem: str) -> None:
    site = load_site(toolset_in(tmp_path))
    assert arguments_problem(site.functions["process_refund"].parameters, given) == problem


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("risk: none", "risk: some", "tools.find_transaction.risk"),
        ("tools:\n", "tool:\n", "unknown key 'tool'"),
        ("limits: {amount:", "limits: {sum:", "limits has 'sum', which is no parameter"),
        ("amount: {type: number, minimum: 0}", "amount: {type: money}", "parameters: properties.amount.type: 'money'"),
        ("    parameters: {type: object", "    schema: {type: object", "tools.find_transaction has no parameters"),
        ("    parameters: {type: object", "    parameters: {type: array", "a JSON Schema of type object"),
        ("executor: own", "executor: owm", "names the driver 'owm', which does not exist"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_site(changed(tmp_path, old, new))
    assert message in str(caught.value) and "tools.yaml:" in str(caught.value)


def test_addresses_are_checked_with_their_line(tmp_path: Path) -> None:
    path = changed(tmp_path, "at: {function: find_transaction}", "at: {fuction: find_transaction}")
    with pytest.raises(
        UsageError, match=r"tools\.yaml:\d+: tools\.find_transaction\.at\.fuction: unknown key"
    ) as caught:
        check_site(read_yaml(path))
    assert caught.value.hint == "did you mean function?"


def test_what_has_no_executor_cannot_be_run(tmp_path: Path) -> None:
    path = changed(tmp_path, "    executor: own\n    at: {function: find_transaction}\n", "")
    with pytest.raises(UsageError, match="the tool find_transaction has no executor"):
        require_drivers(load_site(path))
