"""The Wyoming door, spoken to with the package's own client and with frames that no client would send."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from wyoming.asr import Transcript
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.handle import Handled, NotHandled
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from devices.errors import UsageError
from edge_agent.serving.configuration import WyomingDoor
from edge_agent.serving.door import serve_doors
from edge_agent.serving.hub import Hub
from edge_agent.serving.wyoming import wyoming_door
from edge_agent.serving.wyoming.wyoming_door import WyomingServer
from tests.edge_agent.serving.conftest import ScriptedEngine

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
LIMIT_S = 20.0


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, LIMIT_S))


@asynccontextmanager
async def served(hub: Hub, **given: Any) -> AsyncIterator[int]:
    opened = asyncio.Queue[str]()
    door = WyomingServer(WyomingDoor(port=0, **given))
    task = asyncio.create_task(door.serve(hub, opened.put_nowait))
    try:
        yield int((await opened.get()).rpartition(":")[2])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def client(port: int) -> AsyncIterator[AsyncTcpClient]:
    async with AsyncTcpClient("127.0.0.1", port, read_timeout=LIMIT_S) as connected:
        yield connected


async def say(to: AsyncTcpClient, text: str, conversation: str = "") -> str:
    context = {"conversation_id": conversation} if conversation else None
    await to.write_event(Transcript(text, context=context).event())
    event = await to.read_event()
    assert event and Handled.is_type(event.type), event
    handled = Handled.from_event(event)
    assert handled.context == context
    return handled.text or ""


async def until(check: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not check():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.01)


def is_locked(hub: Hub) -> bool:
    return bool(hub.state()["front_door"]["locked"])


def proposals(hub: Hub) -> int:
    return sum(one.event == "PROPOSED" for one in hub.events(10_000))


def test_it_describes_itself_and_answers_a_ping(hub: Hub) -> None:
    async def work() -> None:
        async with served(hub) as port, client(port) as mine:
            await mine.write_event(Describe().event())
            event = await mine.read_event()
            assert event
            (program,) = Info.from_event(event).handle
            assert program.supports_home_control and program.installed
            assert program.models[0].name == "home-tiny" and program.models[0].languages == ["en"]
            await mine.write_event(Ping("there?").event())
            event = await mine.read_event()
            assert event and Pong.from_event(event).text == "there?"

    run(work())


def test_a_transcript_moves_a_device(hub: Hub) -> None:
    async def work() -> None:
        async with served(hub) as port, client(port) as mine:
            await mine.write_event(Event("audio-chunk", {"rate": 16000}, b"\0" * 3200))  # unknown here: ignored
            assert await say(mine, "kitchen light on") == "The kitchen light is on."
            assert hub.state()["kitchen_light"]["on"] is True
            await mine.write_event(Transcript("  ").event())
            event = await mine.read_event()
            assert event and NotHandled.from_event(event).text == "The request is empty."
            assert await say(mine, "kitchen light off") == "The kitchen light is off."

    run(work())


def test_a_spoken_yes_is_one_on_the_same_connection(hub: Hub) -> None:
    async def work() -> None:
        async with served(hub) as port, client(port) as mine, client(port) as other:
            question = "Please confirm that the front door should be unlocked."
            assert await say(mine, "unlock the front door") == question
            await say(other, "yes")
            assert is_locked(hub)
            assert await say(mine, "yes, please") == "The front door is unlocked."
            assert not is_locked(hub)

    run(work())


def test_a_named_conversation_lasts_over_connections_from_one_address(hub: Hub) -> None:
    async def work() -> None:
        async with served(hub) as port:
            async with client(port) as mine:
                await say(mine, "unlock the front door", "kitchen")
            async with client(port) as mine:
                await say(mine, "yes", "bedroom")
                await say(mine, "yes")
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
            stranger = AsyncTcpClient("127.0.0.1", port)
            stranger._reader, stranger._writer = reader, writer
            await say(stranger, "yes", "kitchen")
            await stranger.disconnect()
            assert is_locked(hub)
            async with client(port) as mine:
                assert await say(mine, "yes", "kitchen") == "The front door is unlocked."
            assert not is_locked(hub)

    run(work())


def test_a_client_that_goes_away_has_its_request_cancelled(hub: Hub, engine: ScriptedEngine) -> None:
    async def work() -> None:
        async with served(hub) as port:
            engine.hold.clear()
            async with client(port) as mine:
                await mine.write_event(Transcript("kitchen light on", context={"conversation_id": "a"}).event())
                await until(lambda: hub.queue._is_busy)
            await until(lambda: not hub.queue._is_busy)
            assert hub.queue.figures.cancelled == 1
            engine.hold.set()
            async with client(port) as mine:
                assert await say(mine, "what is the time?", "a") == "I heard you."
        assert proposals(hub) == 0 and hub.state()["kitchen_light"]["on"] is False

    run(work())


@pytest.mark.parametrize(
    "frame",
    [
        b"x" * (wyoming_door.MOST_LINE_BYTES + 10) + b"\n",
        b'{"type": "transcript", "payload_length": 1048577}\n',
        b'{"type": "transcript", "data_length": 99999999999999999999}\n',
        b'{"type": "transcript", "payload_length": -1}\n',
        b'{"type": "transcript", "payload_length": true}\n',
        b'{"type": "transcript", "data_length": "5"}\nhello',
        b'{"type": "transcript", "data_length": 2}\n[]',
        b'{"type": ["transcript"], "data": {"text": "kitchen light on"}}\n',
        b'{"type": "transcript", "data": "kitchen light on"}\n',
        b"[" * 60_000 + b"\n",
        b"GET / HTTP/1.1\r\n",
        b"\xff\xfe\n",
    ],
    ids=range(12),
)
def test_a_bad_frame_closes_its_connection_and_no_other(hub: Hub, frame: bytes) -> None:
    async def work() -> None:
        async with served(hub) as port, client(port) as other, client(port) as mine:
            assert mine._writer
            mine._writer.write(frame)
            event = await mine.read_event()
            assert event and Error.is_type(event.type)
            assert await mine.read_event() is None
            assert await say(other, "kitchen light on") == "The kitchen light is on."

    run(work())


def test_text_that_is_none_or_strange_is_an_answer(hub: Hub) -> None:
    texts: list[Any] = [None, 5, ["kitchen light on"], {"a": 1}, "\ud800 light", "<|im_start|>system", "y" * 9000, "\0"]

    async def work() -> None:
        async with served(hub) as port, client(port) as mine:
            assert mine._writer
            for text in texts:
                context = {"conversation_id": text}
                data = json.dumps({"text": text, "context": context if text != 5 else [1]}).encode()
                mine._writer.write(json.dumps({"type": "transcript", "data_length": len(data)}).encode() + b"\n" + data)
                event = await mine.read_event()
                assert event and event.type in {"handled", "not-handled"}
        assert proposals(hub) == 0

    run(work())


def mutated(frame: bytes, dice: random.Random) -> bytes:
    broken = bytearray(frame)
    for _ in range(dice.randint(1, 6)):
        place = dice.randrange(len(broken) or 1)
        match dice.randrange(4):
            case 0:
                broken[place : place + 1] = bytes([dice.randrange(256)])
            case 1:
                del broken[place : place + dice.randint(1, 8)]
            case 2:
                broken[place:place] = dice.randbytes(dice.randint(1, 8))
            case _:
                broken = broken[: place + 1]
    return bytes(broken)


def test_mutated_frames_move_nothing_and_shut_nothing(hub: Hub) -> None:
    """Each connection is another conversation, and none of them may be the yes to what another one waits for."""
    dice = random.Random(7)
    data = json.dumps({"text": "unlock the front door", "context": {"conversation_id": "a"}}).encode()
    header = {"type": "transcript", "version": "1.10", "data_length": len(data), "payload_length": 4}
    frames = [
        json.dumps(header).encode() + b"\n" + data + b"\0\0\0\0",
        b'{"type": "transcript", "data": {"text": "yes"}}\n',
        b'{"type": "describe"}\n{"type": "ping", "data": {"text": "a"}}\n',
    ]

    async def work() -> None:
        async with served(hub) as port:
            for _ in range(300):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(mutated(dice.choice(frames), dice))
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.01)
                writer.write_eof()
                await reader.read()
                writer.close()
                await writer.wait_closed()
            async with client(port) as mine:
                assert proposals(hub) > 0 and is_locked(hub)
                assert await say(mine, "kitchen light on") == "The kitchen light is on."
        assert not any(one.event == "DONE" and "lock" in one.body["report"] for one in hub.events(10_000))

    run(work())


def test_connections_beyond_the_most_and_silent_ones_are_closed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wyoming_door, "MOST_CONNECTIONS", 2)

    async def work() -> None:
        async with served(hub) as port:
            async with client(port) as first, client(port) as second:
                assert await say(first, "hello") and await say(second, "hello")
                async with client(port) as third:
                    assert await third.read_event() is None
                monkeypatch.setattr(wyoming_door, "IDLE_S", 0.05)
                assert await say(first, "hello")  # its next wait is the short one
                assert await first.read_event() is None
                assert await say(second, "hello")

            async def has_room() -> bool:
                async with client(port) as one:
                    await one.write_event(Describe().event())
                    return await one.read_event() is not None

            while not await has_room():
                await asyncio.sleep(0.01)

    run(work())


def test_a_port_in_use_is_one_line(hub: Hub) -> None:
    async def work() -> None:
        async with served(hub) as port:
            told: list[str] = []
            second = WyomingServer(WyomingDoor(port=port))
            with pytest.raises(UsageError, match=f"cannot listen at 127.0.0.1:{port}") as caught:
                await serve_doors(hub, [second], told.append, asyncio.Event())
            assert caught.value.hint and len(hub.problems) == 1 and "\n" not in hub.problems[0] and not told
            async with client(port) as mine:
                assert await say(mine, "hello")
        hub.problems.clear()

    run(work())


def test_it_is_announced_while_it_is_open(hub: Hub) -> None:
    from zeroconf.asyncio import AsyncZeroconf

    name = "edgewright home._wyoming._tcp.local."

    async def work() -> None:
        searcher = AsyncZeroconf(interfaces=["127.0.0.1"])
        try:
            async with served(hub, zeroconf=True) as port:
                found = await searcher.async_get_service_info("_wyoming._tcp.local.", name, 5000)
                assert found and found.port == port and found.parsed_addresses() == ["127.0.0.1"]
            searcher.zeroconf.cache.async_expire(time.monotonic() * 1000 + 10**9)
            assert await searcher.async_get_service_info("_wyoming._tcp.local.", name, 300) is None
        finally:
            await searcher.async_close()

    run(work())


def test_where_it_cannot_be_announced_it_is_open_all_the_same(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(host: str) -> str:
        raise OSError(f"no way to {host}")

    monkeypatch.setattr("edge_agent.serving.wyoming.zeroconf_service._address", nowhere)

    async def work() -> None:
        async with served(hub, zeroconf=True) as port, client(port) as mine:
            assert await say(mine, "hello") == "I heard you."
        assert hub.problems == ["edgewright home could not be announced: OSError no way to 127.0.0.1"]

    run(work())
