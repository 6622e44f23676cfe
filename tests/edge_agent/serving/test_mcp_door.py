"""The MCP door, spoken to with the SDK's own client: in memory, over streamable HTTP and over stdio, in both eras."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, ElicitResult, InputRequiredResult, TextResourceContents
from starlette.applications import Starlette
from starlette.routing import Route

from devices.site.site import load_site
from devices.site.tools import Command, tools_of
from edge_agent.serving.hub import Hub
from edge_agent.serving.mcp.mcp_door import make_server, streamable_http_app
from edge_agent.serving.mcp.tool_description import describe_tool
from tests.edge_agent.serving.conftest import ScriptedEngine

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
LEGACY, MODERN = "legacy", "2026-07-28"
ERAS = [LEGACY, MODERN]
LIMIT_S, START_S = 30.0, 120.0
UNLOCK = ("lock_unlock", {"device": "front_door"})
QUESTION = "Please confirm that the front door should be unlocked. (front door: locked = unlocked)"
ROOT = Path(__file__).parents[3]


def run(work: Coroutine[Any, Any, None], limit_s: float = LIMIT_S) -> None:
    asyncio.run(asyncio.wait_for(work, limit_s))


def is_locked(hub: Hub) -> bool:
    return bool(hub.state()["front_door"]["locked"])


def text_of(result: CallToolResult) -> str:
    (block,) = result.content
    return str(block.text)  # type: ignore[union-attr]


class Person:
    """Says what a test wants to every question, and remembers them."""

    def __init__(self, action: Any = "accept", content: Any = None) -> None:
        self.answer = ElicitResult(action=action, content={"yes": True} if content is None else content)
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, context: object, params: Any) -> ElicitResult:
        self.asked.append(params.message)
        await self.may_answer.wait()
        return self.answer


@asynccontextmanager
async def over_http(hub: Hub) -> AsyncIterator[str]:
    app, running = streamable_http_app(hub)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with running:
            yield

    server = uvicorn.Server(
        uvicorn.Config(
            Starlette(routes=[Route("/mcp", endpoint=app)], lifespan=lifespan),
            port=0,
            log_level="critical",
            timeout_graceful_shutdown=1,
            ws="none",
        )
    )
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        await task


Connect = Callable[..., Any]


@asynccontextmanager
async def connected(hub: Hub, transport: str) -> AsyncIterator[Connect]:
    """Give what makes clients of one server."""
    if transport == "http":
        async with over_http(hub) as url:
            yield lambda era, **given: Client(url, mode=era, **given)
    else:
        server = make_server(hub)
        yield lambda era, **given: Client(server, mode=era, **given)


TRANSPORTS = ["memory", "http"]
every_way = pytest.mark.parametrize(("transport", "era"), [(one, era) for one in TRANSPORTS for era in ERAS])


@every_way
def test_tools_are_listed_and_move_devices(hub: Hub, transport: str, era: str) -> None:
    async def work() -> None:
        async with connected(hub, transport) as connect, connect(era) as client:
            tools = {one.name: one for one in (await client.list_tools()).tools}
            assert tools.keys() == {tool.name for tool in hub.tools} | {"ask", "stop"}
            for tool in hub.tools:
                assert tools[tool.name].input_schema == tool.json_schema()
            unlock = tools["lock_unlock"]
            assert unlock.description == "Lock unlock: front door. The person is asked for a yes."
            assert unlock.annotations.destructive_hint and not tools["light_on"].annotations.destructive_hint
            assert not any(one.annotations.read_only_hint for one in tools.values())
            result = await client.call_tool("light_brightness", {"device": "kitchen_light", "brightness": 40})
            assert not result.is_error and text_of(result) == "The kitchen light brightness is 40 percent."
            (action,) = result.structured_content["actions"]
            assert action["status"] == "done" and action["result"]["brightness"] == 40
            assert hub.state()["kitchen_light"]["brightness"] == 40

    run(work())


@every_way
def test_wrong_calls_are_errors_for_the_model(hub: Hub, transport: str, era: str) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("light_brightness", {"device": "kitchen_light", "brightness": 400}),
        ("light_brightness", {"device": ["kitchen_light"], "brightness": {"a": 1}}),
        ("light_on", {}),
        ("light_on", {"device": "front_door"}),
        ("light_on", {"device": "kitchen_light", "why": "so"}),
        ("no_such_tool", {}),
        ("ask", {}),
        ("ask", {"text": ""}),
        ("ask", {"text": 5}),
        ("ask", {"text": "kitchen light on", "yes": True}),
        ("ask", {"text": "kitchen light on" * 400}),
    ]

    async def work() -> None:
        async with connected(hub, transport) as connect, connect(era) as client:
            for name, arguments in wrong:
                result = await client.call_tool(name, arguments)
                assert result.is_error and text_of(result), name
        assert not hub.events(10)

    run(work())


@every_way
def test_the_agent_is_asked(hub: Hub, transport: str, era: str) -> None:
    async def work() -> None:
        async with connected(hub, transport) as connect, connect(era) as client:
            result = await client.call_tool("ask", {"text": "kitchen light on"})
            assert text_of(result) == "The kitchen light is on." and not result.is_error
            assert [one["device"] for one in result.structured_content["actions"]] == ["kitchen_light"]
            assert hub.state()["kitchen_light"]["on"] is True

    run(work())


@every_way
@pytest.mark.parametrize("name", ["lock_unlock", "ask"])
def test_a_persons_yes_unlocks(hub: Hub, transport: str, era: str, name: str) -> None:
    arguments = {"text": "unlock the front door"} if name == "ask" else UNLOCK[1]

    async def work() -> None:
        person = Person()
        async with connected(hub, transport) as connect, connect(era, elicitation_callback=person) as client:
            result = await client.call_tool(name, arguments)
            assert person.asked == [QUESTION]
            assert not result.is_error and text_of(result) == "The front door is unlocked."
            assert [one["status"] for one in result.structured_content["actions"]] == ["done"]
            assert not is_locked(hub)
            again = await client.call_tool(name, arguments)  # nothing is asked where nothing is to be done
            assert not again.is_error and len(person.asked) == 1

    run(work())


@every_way
@pytest.mark.parametrize(
    ("action", "content"),
    [("decline", None), ("cancel", None), ("accept", {}), ("accept", {"yes": False}), ("accept", {"yes": "true"})],
)
def test_whatever_is_no_clear_yes_leaves_it(hub: Hub, transport: str, era: str, action: str, content: Any) -> None:
    async def work() -> None:
        person = Person(action, content)
        async with connected(hub, transport) as connect, connect(era, elicitation_callback=person) as client:
            result = await client.call_tool(*UNLOCK)
            assert result.is_error and text_of(result) == "I left it as it was."
            said = await client.call_tool("ask", {"text": "unlock the front door"})
            assert not said.is_error and text_of(said) == "I left it as it was." and len(person.asked) == 2
            await client.call_tool("ask", {"text": "yes"})
            assert is_locked(hub)

    run(work())


@every_way
def test_a_client_that_cannot_ask_is_told_what_would_need_a_yes(hub: Hub, transport: str, era: str) -> None:
    """And its model cannot give the yes itself."""

    async def work() -> None:
        async with connected(hub, transport) as connect, connect(era) as client:
            for name, arguments in (UNLOCK, ("ask", {"text": "unlock the front door"})):
                result = await client.call_tool(name, arguments)
                assert result.is_error and QUESTION in text_of(result)
                assert [one["status"] for one in result.structured_content["actions"]] == ["needs_confirmation"]
                await client.call_tool("ask", {"text": "yes"})
                assert is_locked(hub)

    run(work())


@pytest.mark.parametrize("era", ERAS)
def test_all_that_one_request_needs_is_asked(hub: Hub, engine: ScriptedEngine, era: str) -> None:
    from edge_agent.wire.markers import CALL, END_CALL, END_THINK, THINK

    calls = [("lock_unlock", "front_door"), ("light_on", "kitchen_light"), ("cover_open", "garage_door")]
    bodies = "".join(
        f"{CALL}{json.dumps({'name': tool, 'arguments': {'device': device}}, separators=(',', ':'))}{END_CALL}"
        for tool, device in calls
    )
    engine.replies["everything"] = f"{THINK} done so.{END_THINK}{bodies}"

    async def work() -> None:
        person = Person()
        async with connected(hub, "memory") as connect, connect(era, elicitation_callback=person) as client:
            result = await client.call_tool("ask", {"text": "everything"})
            assert sorted(person.asked)[0] == QUESTION and len(person.asked) == 2
            assert "Please" not in text_of(result)
            done = {one["device"]: one["status"] for one in result.structured_content["actions"]}
            assert done == {"front_door": "done", "kitchen_light": "done", "garage_door": "done"}, text_of(result)

    run(work())


def test_a_conversation_lasts_as_long_as_a_session_and_no_longer(hub: Hub, engine: ScriptedEngine) -> None:
    async def work() -> None:
        async with connected(hub, "http") as connect, connect(LEGACY) as mine, connect(LEGACY) as other:
            for client in (mine, other, mine):
                await client.call_tool("ask", {"text": "hello"})
            asked = [prompt.count("Request: hello") for prompt in engine.prompts]
            assert asked == [1, 1, 2]
            async with connect(MODERN) as stateless:
                for _ in range(2):
                    await stateless.call_tool("ask", {"text": "hello"})
            assert [prompt.count("Request: hello") for prompt in engine.prompts[3:]] == [1, 1]

    run(work())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_client_confirms_for_another_in_the_middle_of_a_call(hub: Hub, transport: str) -> None:
    async def work() -> None:
        person, other_person = Person(), Person()
        person.may_answer.clear()
        async with (
            connected(hub, transport) as connect,
            connect(LEGACY, elicitation_callback=person) as mine,
            connect(LEGACY, elicitation_callback=other_person) as other,
        ):
            waiting = asyncio.create_task(mine.call_tool(*UNLOCK))
            while not person.asked:
                await asyncio.sleep(0.01)
            assert text_of(await other.call_tool("ask", {"text": "yes"})) == "I heard you."
            words = asyncio.create_task(mine.call_tool("ask", {"text": "yes"}))  # its model is too quick
            await other.call_tool("light_on", {"device": "kitchen_light"})
            assert is_locked(hub) and not other_person.asked
            person.may_answer.set()
            assert text_of(await waiting) == "The front door is unlocked."
            assert text_of(await words) == "I heard you."

    run(work())


def test_a_sealed_state_counts_once_for_its_call_and_its_address(hub: Hub) -> None:
    async def work() -> None:
        person = Person()
        yes: dict[str, Any] = {"0": ElicitResult(action="accept", content={"yes": True})}
        async with over_http(hub) as url, Client(url, mode=MODERN, elicitation_callback=person) as mine:

            async def call(client: Client, name: str, device: str, state: str | None) -> Any:
                responses = yes if state is not None else None
                return await client.session.call_tool(
                    name,
                    {"device": device},
                    input_responses=responses,
                    request_state=state,
                    allow_input_required=True,
                )

            asked = await call(mine, *("lock_unlock", "front_door"), None)
            assert isinstance(asked, InputRequiredResult) and asked.request_state
            transport = httpx2.AsyncHTTPTransport(local_address="127.0.0.2")
            async with (
                httpx2.AsyncClient(transport=transport) as http,
                Client(streamable_http_client(url, http_client=http), mode=MODERN, elicitation_callback=person) as far,
            ):
                with pytest.raises(MCPError, match="requestState"):
                    await call(far, "lock_unlock", "front_door", asked.request_state)
            with pytest.raises(MCPError, match="requestState"):
                await call(mine, "cover_open", "garage_door", asked.request_state)
            with pytest.raises(MCPError, match="requestState"):
                await call(mine, "lock_unlock", "front_door", asked.request_state[:-4] + "AAAA")
            without = await call(mine, "lock_unlock", "front_door", None)
            assert isinstance(without, InputRequiredResult) and is_locked(hub)
            assert text_of(await call(mine, "lock_unlock", "front_door", asked.request_state)) == (
                "The front door is unlocked."
            )
            hub.open_session("test").command(Command("front_door", "lock", {}))
            again = await call(mine, "lock_unlock", "front_door", asked.request_state)
            assert again.is_error and "nothing waits" in text_of(again) and is_locked(hub)

    run(work())


@pytest.mark.parametrize("era", ERAS)
def test_a_call_that_is_given_up_moves_nothing_and_leaves_nothing_waiting(
    hub: Hub, engine: ScriptedEngine, era: str
) -> None:
    async def work() -> None:
        person = Person()
        async with connected(hub, "memory") as connect, connect(era, elicitation_callback=person) as client:
            engine.hold.clear()
            asking = asyncio.create_task(client.call_tool("ask", {"text": "kitchen light on"}))
            while not hub.queue._is_busy:
                await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            while hub.queue._is_busy:
                await asyncio.sleep(0.01)
            engine.hold.set()
            assert not hub.events(10) and hub.queue.figures.cancelled == 1
            person.may_answer.clear()
            unlocking = asyncio.create_task(client.call_tool(*UNLOCK))
            while not person.asked:
                await asyncio.sleep(0.01)
            unlocking.cancel()
            await asyncio.gather(unlocking, return_exceptions=True)
            assert text_of(await client.call_tool("ask", {"text": "yes"})) == "I heard you."
            assert is_locked(hub)

    run(work())


@every_way
def test_state_and_journal_are_read(hub: Hub, transport: str, era: str) -> None:
    async def work() -> None:
        async with connected(hub, transport) as connect, connect(era) as client:
            await client.call_tool("light_on", {"device": "kitchen_light"})
            listed = {str(one.uri) for one in (await client.list_resources()).resources}
            assert listed == {"edgewright://state", "edgewright://journal"}
            (state,) = (await client.read_resource("edgewright://state")).contents
            assert isinstance(state, TextResourceContents)
            assert json.loads(state.text)["state"]["kitchen_light"]["on"] is True
            (journal,) = (await client.read_resource("edgewright://journal")).contents
            assert isinstance(journal, TextResourceContents)
            assert "PROPOSED" in journal.text.splitlines()[0] and "The kitchen light is on." in journal.text
            with pytest.raises(MCPError, match="no other resource"):
                await client.read_resource("edgewright://secrets")

    run(work())


@every_way
def test_stop_waits_for_nobody(hub: Hub, engine: ScriptedEngine, transport: str, era: str) -> None:
    async def work() -> None:
        async with connected(hub, transport) as connect, connect(era) as client:
            assert not (await client.call_tool("switch_run", {"device": "well_pump", "seconds": 60})).is_error
            engine.hold.clear()
            asking = asyncio.create_task(client.call_tool("ask", {"text": "hello"}))
            result = await client.call_tool("stop", {})
            assert not result.is_error and text_of(result) == "Everything was stopped."
            assert hub.state()["well_pump"]["running"] is False
            engine.hold.set()
            assert text_of(await asking) == "I heard you."

    run(work())


def test_malformed_frames_are_refused_and_move_nothing(hub: Hub) -> None:
    """Valid ones are broken in 200 ways, in each of the ways in: opening, in a session, and without sessions."""
    dice = random.Random(11)
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": UNLOCK[0], "arguments": UNLOCK[1]}}
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    }
    modern = call | {"params": call["params"] | {"_meta": meta}}  # type: ignore[operator]
    start = {
        "jsonrpc": "2.0",
        "id": 0,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}},
    }
    plain = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    named = plain | {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": UNLOCK[0]}
    odd = [b"", b"null", b"[]", b"[" * 90_000, b'{"jsonrpc": "2.0", "id": 1' + b"0" * 5000 + b"}", b"\xff", b"\0" * 64]

    async def work() -> None:
        async with over_http(hub) as url, httpx2.AsyncClient(timeout=LIMIT_S) as http:
            opened = await http.post(url, headers=plain, json=start)
            session = plain | {"mcp-session-id": opened.headers["mcp-session-id"]}
            for number in range(200):
                headers, frame = dice.choice([(plain, start), (plain, call), (session, call), (named, modern)])
                body = odd[number] if number < len(odd) else broken(json.dumps(frame).encode(), dice)
                answer = await http.post(url, headers=headers, content=body)
                assert answer.status_code < 500, (body, answer.text)
            for method in ("PUT", "PATCH", "OPTIONS", "HEAD", "DELETE"):
                assert (await http.request(method, url, headers=plain)).status_code < 500
            too_long = await http.post(url, headers=plain, content=b" " * 300_000)
            assert too_long.status_code == 413
            async with Client(url) as client:
                assert (
                    text_of(await client.call_tool("ask", {"text": "kitchen light on"})) == "The kitchen light is on."
                )
        assert is_locked(hub)

    run(work())


def broken(frame: bytes, dice: random.Random) -> bytes:
    """Return a frame that is not what it was: other bytes, or another value somewhere in it."""
    if dice.random() < 0.4:
        text = bytearray(frame)
        for _ in range(dice.randint(1, 4)):
            text[dice.randrange(len(text))] = dice.randrange(256)
        return bytes(text[: dice.randrange(1, len(text))] if dice.random() < 0.3 else text)
    plain = json.loads(frame)
    at = plain if dice.random() < 0.3 else plain["params"]
    at = at["arguments"] if "arguments" in at and dice.random() < 0.5 else at
    strange: list[Any] = [None, -1, 1e308, [], {}, "", "\ud800", [[[]]], True, {"a": {"b": []}}, "x" * 5000, 10**400]
    at[dice.choice([*at, "_meta", "requestState", "inputResponses", "id"])] = dice.choice(strange)
    return json.dumps(plain).encode()


SERVER = """
import asyncio
from contextlib import contextmanager
from tests.edge_agent.serving import conftest
from edge_agent.serving.mcp.mcp_door import serve_stdio

make = contextmanager(conftest.hub.__wrapped__)
with make(conftest.ScriptedEngine()) as hub:
    async def main():
        serving = asyncio.create_task(serve_stdio(hub))
        while not serving.done():
            await asyncio.sleep(0.01)
            if not serving.done():
                print("this must not reach the client")
        await serving
    asyncio.run(main())
"""


@pytest.mark.parametrize("era", [LEGACY, pytest.param(MODERN, marks=pytest.mark.slow)])
def test_a_program_is_spoken_to_over_stdio(era: str) -> None:
    async def work() -> None:
        person = Person()
        program = StdioServerParameters(command=sys.executable, args=["-c", SERVER])
        program.cwd = str(ROOT)
        async with Client(stdio_client(program), mode=era, elicitation_callback=person) as client:
            result = await client.call_tool("ask", {"text": "kitchen light on"})
            assert text_of(result) == "The kitchen light is on."
            assert text_of(await client.call_tool(*UNLOCK)) == "The front door is unlocked."
            assert person.asked == [QUESTION]

    run(work(), START_S)


def test_stdio_ends_with_its_input_and_speaks_only_json() -> None:
    lines = b'not json\n\n{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n' + b"x" * 300_000 + b"\n"
    lines += b'{"jsonrpc": "2.0", "id": 2, "method": "ping"}\n'
    program = [sys.executable, "-c", SERVER]
    with Popen(program, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT) as running:
        assert running.stdin and running.stdout and running.stderr
        running.stdin.write(lines)
        running.stdin.flush()
        answered = set[int]()
        while not answered >= {1, 2}:
            answered.add(json.loads(running.stdout.readline()).get("id"))
        running.stdin.close()
        assert running.wait(START_S) == 0 and not running.stdout.read()
        assert b"this must not reach" in running.stderr.read()


def test_descriptions_say_what_reads_and_what_names_areas(tmp_path: Path) -> None:
    support = load_site("support")
    told = {tool.name: describe_tool(support, tool) for tool in tools_of(support)}
    assert {one.is_reading for name, one in told.items() if name.endswith("_find")} == {True}
    assert all(one.is_harmful for name, one in told.items() if name.endswith("_refund"))
    path = tmp_path / "flat.yaml"
    path.write_text(
        "schema: site/v1\nname: flat\ntitle: the flat\nareas: {hall: {}, den: {}}\ndevices:\n"
        "  lamp: {model: light, area: hall}\n  spot: {model: light, area: den}\n"
        "scenes: {night: {devices: {lamp: {on: false}}}}\n"
    )
    flat = load_site(path)
    tools = {tool.name: describe_tool(flat, tool) for tool in tools_of(flat)}
    schema = tools["light_on"].schema
    assert schema["type"] == "object" and schema["required"] == [] and "anyOf" not in schema
    assert list(schema["properties"]) == ["device", "area", "except"]
    assert schema["properties"]["area"]["enum"] == ["hall", "den", "everywhere"]
    assert tools["scene_turn_on"].text == "Turn on a scene: night." and not tools["scene_turn_on"].is_reading
