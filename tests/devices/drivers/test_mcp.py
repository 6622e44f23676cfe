"""Tools of a real MCP server over stdio, and over streamable HTTP: drafted, called, failing, dying."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.drivers.registry import open_driver
from devices.errors import UsageError
from devices.site.functions import CALL
from devices.site.site import load_site
from devices.site.tools import Command, ToolCall, commands_of, tools_of
from finetune.data.toolsets.draft import draft_toolset
from tests.ports import free_port

pytest.importorskip("mcp")
SHOP = Path(__file__).parent / "mcp_shop.py"


def toolset_in(folder: Path, **server: object) -> Path:
    config = folder / "mcp.json"
    words = [str(SHOP), str(folder / "notes.txt")]
    entry = server or {"command": sys.executable, "args": words, "env": {"SHOP_STATE": "paid"}}
    config.write_text(json.dumps({"mcpServers": {"shop": entry}}), encoding="utf-8")
    path = folder / "tools.yaml"
    path.write_text(draft_toolset(str(config)).to_yaml(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toolset_in(tmp_path_factory.mktemp("mcp"))


@pytest.fixture
def broker(path: Path) -> Iterator[Broker]:
    text = path.read_text(encoding="utf-8").replace("    server: shop\n", "    server: shop\n    timeout_s: 4\n")
    shorter = path.with_name("shorter.yaml")
    shorter.write_text(text, encoding="utf-8")
    site = load_site(shorter)
    driver = open_driver(site)
    yield Broker(site, driver, Journal(), confirm=lambda effect: True)
    driver.close()


def note(text: str) -> Command:
    return Command("add_note", CALL, {"text": text})


def test_a_draft_lists_what_the_server_offers(path: Path) -> None:
    site = load_site(path)
    assert list(site.functions) == ["add_note", "find_order"]
    assert (site.functions["add_note"].risk, site.functions["find_order"].risk) == ("confirm", "none")
    assert site.functions["find_order"].description == "Shows an order."
    assert site.functions["find_order"].parameters["properties"]["number"]["type"] == "integer"
    assert commands_of(ToolCall("list_files", {}), tools_of(site)) == "no tool is called list_files"


def test_tools_answer_and_refuse(broker: Broker) -> None:
    assert broker.execute(note("milk")).result == {"notes": 1}
    assert broker.execute(note("bread")).result == {"notes": 2}  # of one process
    found = broker.execute(Command("find_order", CALL, {"number": 7}))
    assert found.result == {"result": "order 7 is paid"}
    refused = broker.execute(Command("find_order", CALL, {"number": -1}))
    assert (refused.status, refused.report) == (
        "failed",
        "find_order failed: Error executing tool find_order: no such order.",
    )


@pytest.mark.parametrize("text", ["die", "hang"])
def test_a_server_that_dies_or_hangs_is_started_anew(broker: Broker, text: str) -> None:
    lost = broker.execute(note(text))
    assert lost.status == "unknown" and lost.report.startswith(
        "I do not know whether add_note was done: MCP server shop"
    )
    assert broker.execute(Command("find_order", CALL, {"number": 7})).status == "done"


def test_a_server_that_cannot_start_is_one_line(tmp_path: Path, path: Path) -> None:
    broken = tmp_path / "tools.yaml"
    text = path.read_text(encoding="utf-8")
    broken.write_text(text.replace(str(path.with_name("mcp.json")), str(tmp_path / "gone.json")), encoding="utf-8")
    site = load_site(broken)
    outcome = Broker(site, open_driver(site), Journal()).execute(Command("find_order", CALL, {"number": 7}))
    assert outcome.status == "failed"
    config = tmp_path / "mcp.json"
    config.write_text('{"mcpServers": {"shop": {}}}', encoding="utf-8")
    with pytest.raises(UsageError, match="names no MCP servers"):
        draft_toolset(str(config))


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_streamable_http(tmp_path: Path) -> None:
    port = free_port()
    words = [sys.executable, str(SHOP), str(tmp_path / "notes.txt"), str(port)]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                site = load_site(toolset_in(tmp_path, url=f"http://127.0.0.1:{port}/mcp"))
                break
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        driver = open_driver(site)
        found = Broker(site, driver, Journal()).execute(Command("find_order", CALL, {"number": 7}))
        assert found.result == {"result": "order 7 is open"}
        driver.close()
    finally:
        process.terminate()
        process.wait()
