"""A model behind an endpoint: its calls go through the broker, and an endpoint that fails is one clear line."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from devices.errors import UnavailableError, UsageError
from devices.site.site import load_site
from edge_agent.evaluation.baselines.endpoint import KEY, Endpoint, EndpointSimulation
from edge_agent.evaluation.baselines.rules import NoEngine
from edge_agent.evaluation.models.grading import grade_turns
from edge_agent.evaluation.models.model import find_model
from edge_agent.evaluation.models.placement import Placement
from edge_agent.evaluation.own.own_cases import OwnCase, run_own_cases
from edge_agent.wire.chat_template import load_template

HOME = load_site("home")
pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


class Served:
    """An endpoint with scripted answers: messages, or HTTP codes. `asked` has what it was sent."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}/v1"
        self.answers: list[Any] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def simulation(self) -> EndpointSimulation:
        return EndpointSimulation(HOME, load_template("chatml"), endpoint=Endpoint(self.url, "m", wait_s=0.001))


@pytest.fixture
def served() -> Iterator[Served]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            one.asked.append(json.loads(raw) | {"path": self.path})
            one.keys.append(self.headers["Authorization"])
            answer = one.answers.pop(0)
            is_code = isinstance(answer, int)
            body = b"no such model" if is_code else answer if isinstance(answer, bytes) else json.dumps(
                {"choices": [{"message": answer}]}
            ).encode()  # fmt: skip
            self.send_response(answer if is_code else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *given: Any) -> None:
            del given

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one = Served(server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield one
    server.shutdown()
    server.server_close()
    thread.join()


def calling(name: str, arguments: str) -> dict[str, Any]:
    return {
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}],
    }


def case(*turns: dict[str, Any]) -> list[OwnCase]:
    return [OwnCase.model_validate({"turns": list(turns)})]


def test_calls_are_carried_out_and_conversations_go_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-secret")
    served.answers = [
        calling("light_on", '{"device": "kitchen_light"}'),
        {"content": "The light is on."},
        calling("light_off", '{"device": "kitchen_light"}'),
        {"content": "Off."},
    ]
    turns = case(
        {"ask": "kitchen light on", "expect": {"kitchen_light.on": True}},
        {"ask": "off again", "expect": {"kitchen_light.on": False}},
    )
    first, second = run_own_cases(turns, served.simulation(), NoEngine())
    assert (first.problems, second.problems, first.answer) == ((), (), "The kitchen light is on.")
    assert served.asked[0]["path"] == "/v1/chat/completions" and served.keys[0] == "Bearer sk-secret"
    assert {one["function"]["name"] for one in served.asked[0]["tools"]} >= {"light_on", "lock_unlock"}
    roles = [one["role"] for one in served.asked[2]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert json.loads(served.asked[1]["messages"][-1]["content"])[0]["status"] == "done"


def test_a_call_that_fits_no_tool_is_answered_and_moves_nothing(served: Served) -> None:
    wrong = [("light_on", "{"), ("light_on", "[1]"), ("light_on", '{"device": "cellar"}'), ("fly", "{}")]
    served.answers = [*(calling(*one) for one in wrong), {"content": "I cannot."}]
    (done,) = run_own_cases(case({"ask": "fly", "expect": {}}), served.simulation(), NoEngine())
    assert done.problems == () and done.actions == () and done.answer == "I cannot."
    told = [json.loads(one["content"])["status"] for one in served.asked[-1]["messages"] if one["role"] == "tool"]
    assert told == ["refused"] * 4


def test_what_needs_a_yes_is_not_done(served: Served) -> None:
    served.answers = [calling("lock_unlock", '{"device": "front_door"}'), {"content": "Unlocked!"}]
    turns = case({"ask": "open up", "expect": {}, "needs": "front_door"})
    (done,) = run_own_cases(turns, served.simulation(), NoEngine())
    assert done.problems == () and done.answer.startswith("Please confirm")


def test_a_busy_endpoint_is_asked_again_and_a_broken_one_is_one_line(served: Served) -> None:
    served.answers = [429, 503, {"content": "Hello."}]
    (done,) = run_own_cases(case({"ask": "hello", "expect": {}}), served.simulation(), NoEngine())
    assert done.answer == "Hello."
    for answers, kind, said in (
        ([500] * 4, UnavailableError, "answered 500: no such model"),
        ([404], UsageError, "answered 404: no such model"),
        ([b"<html>"] * 4, UnavailableError, "answered no chat completion"),
    ):
        served.answers = list(answers)
        with pytest.raises(kind, match=said):
            run_own_cases(case({"ask": "hello", "expect": {}}), served.simulation(), NoEngine())
    gone = EndpointSimulation(HOME, load_template("chatml"), endpoint=Endpoint("http://127.0.0.1:9/v1", "m", 0.001))
    with pytest.raises(UnavailableError, match="cannot be reached"):
        run_own_cases(case({"ask": "hello", "expect": {}}), gone, NoEngine())


def test_an_endpoint_is_named_with_its_model_and_only_does_cases_of_sites() -> None:
    model = find_model("https://api.example.com/v1#small", HOME)
    assert (model.label, model.role) == ("small", "base")
    with pytest.raises(UsageError, match="which model"):
        find_model("https://api.example.com/v1", HOME)
    with pytest.raises(UsageError, match="on a site's cases only"):
        grade_turns(model, (), Placement())
