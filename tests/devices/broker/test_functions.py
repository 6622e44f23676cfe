"""Functions behind the broker: policy, confirmation, one call only, and what a person and the model hear."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.broker.narrowing import narrowed
from devices.broker.output_action import ANSWER_CHARACTERS, bounded
from devices.drivers.registry import open_driver
from devices.site.functions import CALL
from devices.site.site import load_site
from devices.site.tools import Command
from finetune.examples.refund_server import RefundServer
from tests.toolset import toolset_in

EXAMPLES = Path(__file__).parents[3] / "finetune" / "examples"


def refund(transaction_id: str, amount: float = 50) -> Command:
    return Command("process_refund", CALL, {"transaction_id": transaction_id, "amount": amount})


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    site = load_site(toolset_in(tmp_path))
    return Broker(site, open_driver(site), Journal(), confirm=lambda effect: True)


def done_in(folder: Path) -> list[str]:
    file = folder / "done.txt"
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def test_a_function_is_called_once_with_its_key(broker: Broker, tmp_path: Path) -> None:
    outcome = broker.execute(refund("TXN9982"))
    assert (outcome.status, outcome.result) == ("done", {"refund_id": "REF_7712"})
    (line,) = done_in(tmp_path)
    assert line.startswith("TXN9982 50 ") and line.split()[2] != "None"


def test_a_limit_is_policy(broker: Broker, tmp_path: Path) -> None:
    outcome = broker.execute(refund("TXN9982", 150))
    assert (outcome.status, outcome.report) == ("refused", "I did not do that, because amount 150 is above 100.")
    assert outcome.result == {"status": "refused", "reason": "amount 150 is above 100"} and done_in(tmp_path) == []


def test_a_person_confirms_the_exact_call(tmp_path: Path) -> None:
    site, asked = load_site(toolset_in(tmp_path)), list[str]()

    def no(effect: str) -> bool:
        asked.append(effect)
        return False

    outcome = Broker(site, open_driver(site), Journal(), confirm=no).execute(refund('T "x"', 7.5))
    assert outcome.status == "needs_confirmation" and done_in(tmp_path) == []
    assert asked == ['process_refund: transaction_id = "T \\"x\\"", amount = 7.5']


@pytest.mark.parametrize(
    ("transaction", "status", "report"),
    [
        ("BAD", "failed", "process_refund refused: no such transaction."),
        ("BROKEN", "unknown", "I do not know whether process_refund was done: process_refund failed: RuntimeErr"),
        ("HANG", "unknown", "I do not know whether process_refund was done: process_refund: "),
    ],
)
def test_what_goes_wrong_is_never_done(broker: Broker, transaction: str, status: str, report: str) -> None:
    outcome = broker.execute(refund(transaction))
    assert outcome.status == status and outcome.report.startswith(report)


def test_a_function_sees_no_secrets_but_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_SECRET", "s3cret")
    command = Command("find_transaction", CALL, {"transaction_id": "T"})
    path = toolset_in(tmp_path)
    site = load_site(path)
    assert Broker(site, open_driver(site), Journal()).execute(command).result["secret"] == ""
    path.write_text(path.read_text(encoding="utf-8").replace("timeout_s: 3", "environment: [SHOP_SECRET]"))
    site = load_site(path)
    assert Broker(site, open_driver(site), Journal()).execute(command).result["secret"] == "s3cret"
    monkeypatch.delenv("SHOP_SECRET")
    assert Broker(site, open_driver(site), Journal()).execute(command).status == "failed"  # it only asks


def test_answers_are_cut(broker: Broker) -> None:
    result = broker.execute(Command("find_transaction", CALL, {"transaction_id": "T"})).result
    assert len(result["list"]) == 21 and result["list"][-1] == "and 40 more" and result["text"].endswith("(cut)")
    long = bounded({str(number): "y" * 900 for number in range(30)})
    assert list(long) == ["result"] and len(long["result"]) < ANSWER_CHARACTERS + 20
    assert bounded("text") == {"result": "text"} and bounded(None) == {}


@pytest.fixture
def server() -> Iterator[RefundServer]:
    server = RefundServer(0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_the_refund_example_over_http(server: RefundServer, tmp_path: Path) -> None:
    path = tmp_path / "refunds.yaml"
    text = (EXAMPLES / "refunds.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace(":8791", f":{server.server_port}"), encoding="utf-8")
    site = load_site(path)
    broker = Broker(site, open_driver(site), Journal(), confirm=lambda effect: True)
    found = broker.execute(Command("find_transaction", CALL, {"transaction_id": "TXN9982"}))
    assert found.result == {"transaction_id": "TXN9982", "amount": 50.0, "day": "2026-03-02", "state": "settled"}
    assert broker.execute(refund("TXN9982")).result == {"status": "success", "refund_id": "REF_7712"}
    assert broker.execute(refund("TXN9982")).result["status"] == "refused"  # a second wish has a key of its own
    assert broker.execute(refund("TXN2077", 240)).report == "I did not do that, because amount 240 is above 100."
    ticket = broker.execute(Command("open_ticket", CALL, {"subject": "broken", "priority": "high"}))
    assert ticket.result == {"ticket_id": "CASE_501"} and server.tickets == [{"subject": "broken", "priority": "high"}]


def test_the_database_example_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("shop.sqlite")) as database:
        database.executescript((EXAMPLES / "shop.sql").read_text(encoding="utf-8"))
    site = load_site(EXAMPLES / "shop_database.yaml")
    broker = Broker(site, open_driver(site), Journal())
    (customer, *_) = broker.execute(Command("find_customer", CALL, {"name": "a"})).result["rows"]
    everything = broker.execute(Command("orders_of", CALL, {"customer_id": customer["id"]})).result["rows"]
    opened = broker.execute(Command("orders_of", CALL, {"customer_id": customer["id"], "state": "open"})).result["rows"]
    assert len(everything) >= len(opened) and all(row["state"] == "open" for row in opened)


def test_the_travel_example_in_python() -> None:
    site = load_site(EXAMPLES / "travel.yaml")
    broker = Broker(site, open_driver(site), Journal(), confirm=lambda effect: True)
    money = Command("convert_money", CALL, {"amount": 100, "from": "USD", "to": "EUR"})
    assert broker.execute(money).result == {"amount": 100, "from": "USD", "to": "EUR", "result": 92.0}
    booking = Command("book_seat", CALL, {"train": "RJ 553", "name": "Nguyen", "seats": 2})
    assert broker.execute(booking).result["booked"] is True
    wrong = Command("book_seat", CALL, {"train": "RJ 1", "name": "Nguyen", "seats": 2})
    assert broker.execute(wrong).report == "book_seat refused: no train is called RJ 1."


def test_a_program_gets_the_arguments_as_json(tmp_path: Path) -> None:
    program = tmp_path / "shout"
    program.write_text('#!/bin/sh\nread -r line\necho "{\\"got\\": $line}"\n')
    program.chmod(0o755)
    path = tmp_path / "tools.yaml"
    path.write_text(
        f"schema: toolset/v1\nname: t\ntitle: t\nexecutors: {{own: {{type: command, allow: [{program}]}}}}\ntools:\n"
        "  shout:\n    parameters: {type: object, properties: {text: {type: string}}, required: [text]}\n"
        f"    risk: none\n    executor: own\n    at: {{run: [{program}]}}\n"
    )
    site = load_site(path)
    result = Broker(site, open_driver(site), Journal()).execute(Command("shout", CALL, {"text": "a"})).result
    assert result["got"]["arguments"] == {"text": "a"} and result["got"]["key"]


def test_a_bundles_policy_only_narrows(tmp_path: Path) -> None:
    own = load_site(toolset_in(tmp_path))
    text = (tmp_path / "tools.yaml").read_text(encoding="utf-8")
    easier = tmp_path / "easier.yaml"
    easier.write_text(text.replace("maximum: 100", "maximum: 500").replace("risk: confirm", "risk: none"))
    for site in (narrowed(load_site(easier), own), narrowed(own, load_site(easier))):
        assert site.functions["process_refund"].risk == "confirm"
        outcome = Broker(site, open_driver(site), Journal(), confirm=lambda effect: True).execute(refund("T", 200))
        assert outcome.report == "I did not do that, because amount 200 is above 100."
