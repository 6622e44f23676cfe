"""Wyoming's `handle` for voice pipelines: a transcript comes in, what the box did or asks is said.

A connection is a conversation. Home Assistant opens one for every sentence and names its conversation, which is then
kept over connections from the same address; a spoken yes is one there, and nowhere else. A client that goes away has
its request cancelled.

Does not guard against: whoever reaches the port, for the protocol has no token (configuration.py asks for a say-so);
somebody at the same address who knows another's conversation by name; a client that holds all connections.

Source: Wyoming protocol, `wyoming` 1.10; homeassistant/components/wyoming/conversation.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import Any

from wyoming.asr import Transcript
from wyoming.error import Error
from wyoming.event import Event, async_write_event
from wyoming.handle import Handled, NotHandled
from wyoming.info import Attribution, Describe, HandleModel, HandleProgram, Info
from wyoming.ping import Ping, Pong

from devices.errors import EdgeError, UsageError
from devices.site.describe import sentence
from edge_agent.serving.configuration import WyomingDoor
from edge_agent.serving.conversations import Conversation, Conversations
from edge_agent.serving.door import for_client
from edge_agent.serving.hub import Hub
from edge_agent.serving.wyoming.zeroconf_service import announced

MOST_LINE_BYTES, MOST_PAYLOAD_BYTES = 64 * 1024, 1024 * 1024
MOST_CONNECTIONS, MOST_CONVERSATIONS = 32, 128
MOST_TEXT = 4000
IDLE_S, CLOSE_S = 600.0, 1.0
SERVICE = "_wyoming._tcp.local."
LANGUAGES = ["en"]  # that requests are understood in
ANSWERED = {"answer", "question"}  # TurnResult.stop_reason


class _BadFrame(Exception):
    """What came is no event, and where the next one begins is not known."""


class WyomingServer:
    """The door. Raises UsageError as it is served: it cannot listen there."""

    name = "wyoming"

    def __init__(self, configuration: WyomingDoor) -> None:
        self._configuration = configuration

    async def serve(self, hub: Hub, opened: Callable[[str], None]) -> None:
        """Serve until cancelled; see Door."""
        given, clients = self._configuration, _Clients(hub)
        try:
            server = await asyncio.start_server(clients.connected, given.host, given.port, limit=MOST_LINE_BYTES)
        except OSError as error:
            raise UsageError(
                f"cannot listen at {given.host}:{given.port}: {error}", hint="give another wyoming.host or wyoming.port"
            ) from error
        port = server.sockets[0].getsockname()[1]
        name = f"edgewright {hub.site.name}" if given.zeroconf else ""
        async with announced(SERVICE, name, given.host, port, hub.tell):
            opened(f"tcp://{f'[{given.host}]' if ':' in given.host else given.host}:{port}")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                server.close()
                await clients.close()
                await server.wait_closed()


class _Clients:
    """The connections of a box, and the conversations that last longer than they."""

    def __init__(self, hub: Hub) -> None:
        self._info = _info(hub)
        self._conversations = Conversations(hub, MOST_CONVERSATIONS)
        self._tasks = set[asyncio.Task[None]]()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection in a task of its own, if there is room for it."""
        if len(self._tasks) >= MOST_CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="wyoming connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read and work side by side, so that a client's leaving is seen while its request is worked."""
        events = asyncio.Queue[Event](1)
        reading = asyncio.create_task(_read_all(reader, events))
        working = asyncio.create_task(self._work(events, writer))
        try:
            done, _ = await asyncio.wait((reading, working), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        except _BadFrame as error:
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(async_write_event(Error(str(error)).event(), writer), CLOSE_S)
        except (OSError, TimeoutError):  # gone, or silent for too long
            return
        finally:
            for task in (reading, working):
                task.cancel()
            await asyncio.gather(reading, working, return_exceptions=True)
            writer.close()
            try:
                await asyncio.wait_for(writer.wait_closed(), CLOSE_S)
            except (OSError, TimeoutError):
                writer.transport.abort()

    async def _work(self, events: asyncio.Queue[Event], writer: asyncio.StreamWriter) -> None:
        """Answer one event after the other; unknown ones are none of ours."""
        address = writer.get_extra_info("peername") or ("nobody", 0)
        own = self._conversations.of("", f"wyoming {address[0]}:{address[1]}")
        while True:
            event, answer = await events.get(), None
            if Describe.is_type(event.type):
                answer = self._info
            elif Ping.is_type(event.type):
                answer = Pong(_text(event.data.get("text"))).event()
            elif Transcript.is_type(event.type):
                answer = await self._handled(event.data, own, str(address[0]))
            if answer:
                await async_write_event(answer, writer)

    async def _handled(self, data: dict[str, Any], own: Conversation, address: str) -> Event:
        """Return what a transcript led to; a conversation that it names is named again."""
        given = data.get("context")
        named = _text(given.get("conversation_id")) if isinstance(given, dict) else ""
        context = {"conversation_id": named} if named else None
        conversation = self._conversations.of(f"{address} {named}", f"wyoming {address} {named}") if named else own
        async with conversation.turn() as session:
            try:
                turn = await for_client(partial(session.ask, _text(data.get("text"))))
            except EdgeError as error:
                return NotHandled(sentence(str(error)), context).event()
        if turn.stop_reason in ANSWERED:
            return Handled(turn.answer, context).event()
        return NotHandled(turn.answer, context).event()


async def _read_all(reader: asyncio.StreamReader, events: asyncio.Queue[Event]) -> None:
    """Take in events until the client goes away. Raises _BadFrame, and TimeoutError if none comes for IDLE_S."""
    while True:
        async with asyncio.timeout(IDLE_S):
            try:
                event = await read_event(reader)
            except asyncio.IncompleteReadError:
                return
            if event is None:
                return
            await events.put(event)


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """Return the next event, without its payload, or None at the end.

    The package's own reader has no limits and takes any JSON.

    Raises:
        _BadFrame: what came is none, or longer than it may be.
        IncompleteReadError: the client went away in the middle.
    """
    try:
        line = await reader.readline()
    except ValueError as error:
        raise _BadFrame(f"a header has at most {MOST_LINE_BYTES} bytes") from error
    if not line.endswith(b"\n"):
        return None
    header = _mapping(line)
    kind, data = header.get("type"), header.get("data") or {}
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise _BadFrame("a header has a type, and data is an object")
    if length := _length(header, "data_length", MOST_LINE_BYTES):
        data = data | _mapping(await reader.readexactly(length))
    left = _length(header, "payload_length", MOST_PAYLOAD_BYTES)
    while left:  # audio, say: nothing here is made of it
        left -= len(await reader.readexactly(min(left, MOST_LINE_BYTES)))
    return Event(kind, data)


def _mapping(text: bytes) -> dict[str, Any]:
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _BadFrame("this is no JSON") from error
    if not isinstance(plain, dict):
        raise _BadFrame("a header is a JSON object, and so is data")
    return plain


def _length(header: dict[str, Any], name: str, most: int) -> int:
    length = header.get(name) or 0
    if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= most:
        raise _BadFrame(f"{name} is 0 to {most}")
    return length


def _text(given: object) -> str:
    """Return text that fits, without half characters, which JSON may have and UTF-8 has not; "" for anything else."""
    text = given if isinstance(given, str) else ""
    return text.encode("utf-8", "replace").decode()[:MOST_TEXT]


def _info(hub: Hub) -> Event:
    about = {"attribution": Attribution("Edgewright", ""), "installed": True, "version": version("edgewright")}
    model = HandleModel(name=hub.name, description=hub.name, languages=LANGUAGES, **about)  # type: ignore[arg-type]
    program = HandleProgram(
        name=f"edgewright {hub.site.name}",
        description=hub.site.title,
        models=[model],
        supports_home_control=True,
        **about,  # type: ignore[arg-type]
    )
    return Info(handle=[program]).event()
