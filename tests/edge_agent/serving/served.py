"""A door that is served in a thread, as long as a test needs it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from devices.errors import EdgeError
from edge_agent.serving.configuration import HttpDoor
from edge_agent.serving.door import Door, serve_doors
from edge_agent.serving.http.http_door import HttpServer
from edge_agent.serving.hub import Hub

START_S = 20.0


@contextmanager
def serving(hub: Hub, *doors: Door) -> Iterator[list[str]]:
    """Serve through doors; give what was told, the first door's address without its name first."""
    told: list[str] = []
    is_open, loop_is_there = threading.Event(), threading.Event()
    failed: list[EdgeError] = []
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    def tell(text: str) -> None:
        told.append(text.partition(": ")[2])
        is_open.set()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop_is_there.set()
        try:
            loop.run_until_complete(serve_doors(hub, doors, tell, stop))
        except EdgeError as error:
            failed.append(error)
        finally:
            is_open.set()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    loop_is_there.wait(START_S)
    assert is_open.wait(START_S)
    try:
        if not failed:
            yield told
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(START_S)
        assert not thread.is_alive()
    if failed:
        raise failed[0]


@contextmanager
def serving_http(hub: Hub, **wanted: object) -> Iterator[str]:
    """Serve over HTTP at a free port; give the address, with a slash at its end."""
    configuration = HttpDoor.model_validate({"port": 0, "mcp": False} | wanted)
    with serving(hub, HttpServer(configuration)) as told:
        yield told[0]
