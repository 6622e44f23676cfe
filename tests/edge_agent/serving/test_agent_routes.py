"""The box's own API, as its page uses it, and what whoever runs it watches."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import httpx2 as httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_agent.serving.hub import Hub
from tests.edge_agent.serving.conftest import ScriptedEngine
from tests.edge_agent.serving.served import serving_http
from tests.edge_agent.serving.test_sessions import is_locked, wait_until

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture
def client(hub: Hub) -> Iterator[httpx.Client]:
    with serving_http(hub) as url, httpx.Client(base_url=url, timeout=20) as made:
        yield made


@pytest.fixture
def session(client: httpx.Client) -> str:
    return f"/api/sessions/{client.post('/api/sessions').json()['session']}"


def test_the_site_is_described(client: httpx.Client) -> None:
    site = client.get("/api/site").json()
    devices = {one["name"]: one for one in site["devices"]}
    assert site["site"] == "home" and site["model"] == "home-tiny" and site["is_live"] is False
    light = devices["kitchen_light"]
    assert light["actions"]["brightness"]["input"]["brightness"] == {
        "type": "integer", "unit": "percent", "minimum": 0, "maximum": 100,
    }  # fmt: skip
    assert devices["front_door"]["actions"]["unlock"]["risk"] == "confirm"
    assert devices["well_pump"]["actions"]["run"]["is_timed"] is True
    assert client.get("/api/state").json()["state"]["kitchen_light"]["on"] is False


def test_ask_command_confirm_and_why(client: httpx.Client, session: str, hub: Hub) -> None:
    turn = client.post(f"{session}/ask", json={"text": "kitchen light on"}).json()
    assert turn["answer"] == "The kitchen light is on."
    number = turn["actions"][0]["command"]
    assert "read back" in client.get(f"/api/why/{number}").json()["text"]
    wanted = client.post(f"{session}/command", json={"device": "front_door", "action": "unlock"}).json()
    assert wanted["actions"][0]["status"] == "needs_confirmation" and is_locked(hub)
    id_ = wanted["confirmations"][0]["id"]
    done = client.post(f"{session}/confirm", json={"id": id_, "yes": True}).json()
    assert done["answer"] == "The front door is unlocked." and not is_locked(hub)
    again = client.post(f"{session}/confirm", json={"id": id_, "yes": True})
    assert again.status_code == 403 and "nothing waits" in again.json()["error"]["message"]
    events = client.get("/api/journal?count=3").json()["events"]
    assert [one["event"] for one in events][-1] == "DONE" and len(events) == 3


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/api/sessions/x/ask", {"text": "hi"}, 400, "no such session"),
        ("POST", "{session}/ask", {"text": ""}, 400, "text"),
        ("POST", "{session}/ask", {"text": "x" * 5000}, 400, "text"),
        ("POST", "{session}/ask", {"txt": "hi"}, 400, "unknown key|text"),
        ("POST", "{session}/confirm", {"id": "x", "yes": "true"}, 400, "yes"),
        ("GET", "/api/journal?count=zero", None, 400, "count"),
        ("GET", "/api/why/99", None, 400, "no command 99"),
        ("GET", "/api/nothing", None, 404, "GET /api/nothing"),
        ("GET", "/api/stop", None, 405, "GET /api/stop"),
    ],
)
def test_what_cannot_be_is_said(
    client: httpx.Client, session: str, method: str, path: str, body: object, status: int, said: str
) -> None:
    reply = client.request(method, path.replace("{session}", session), json=body)
    assert reply.status_code == status
    assert any(part in reply.json()["error"]["message"] for part in said.split("|"))


def test_stop_waits_for_nobody(client: httpx.Client, session: str, engine: ScriptedEngine, hub: Hub) -> None:
    client.post(f"{session}/command", json={"device": "well_pump", "action": "run", "input": {"seconds": 60}})
    assert hub.state()["well_pump"]["running"] is True
    engine.hold.clear()
    asking = threading.Thread(target=client.post, args=(f"{session}/ask",), kwargs={"json": {"text": "hello"}})
    asking.start()
    wait_until(lambda: hub.queue._is_busy)
    assert client.post("/api/stop").json() == {"problems": []}
    assert hub.state()["well_pump"]["running"] is False
    engine.hold.set()
    asking.join(10)


def test_news_are_streamed(client: httpx.Client, session: str, hub: Hub) -> None:
    kinds = []
    with client.stream("GET", "/api/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
                if len(kinds) == 1:
                    hub.session(session.rpartition("/")[2]).ask("kitchen light on")
            if line.startswith("data: ") and kinds[-1] == "state" and len(kinds) > 1:
                assert json.loads(line.removeprefix("data: "))["state"]["kitchen_light"]["on"] is True
                break
    assert kinds[0] == "state" and kinds.count("journal") in (3, 4)  # the request itself may come after the state
    wait_until(lambda: hub.feed.listeners == 0)


def test_metrics_are_what_prometheus_reads(client: httpx.Client, session: str) -> None:
    client.post(f"{session}/ask", json={"text": "kitchen light on"})
    found = {one.name: one for one in text_string_to_metric_families(client.get("/metrics").text)}
    assert found["edgewright_engine_replies"].samples[0].value == 2
    events = {one.labels["event"]: one.value for one in found["edgewright_journal_events"].samples}
    assert events["done"] == 1
    assert {one.labels["door"]: one.value for one in found["edgewright_door_open"].samples} == {"http": 1}
    assert client.get("/api/health").json()["status"] == "ok"
