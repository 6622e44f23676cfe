"""A door: one protocol through which a box is spoken to. Each runs until it is cancelled; a failure shuts no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from devices.errors import EdgeError
from edge_agent.serving.engine_queue import Cancellation
from edge_agent.serving.hub import OPEN, Hub

Result = TypeVar("Result")
MOST_THREADS = 160  # of requests that wait for the engine or a device; engine_queue.MOST_WAITING fit in
_threads = ThreadPoolExecutor(MOST_THREADS, "request")
_stoppers = ThreadPoolExecutor(8, "stop")


class Door(Protocol):
    """What serve.py opens.

    Attributes:
        name: short, such as "http".
    """

    name: str

    async def serve(self, hub: Hub, opened: Callable[[str], None]) -> None:
        """Serve until cancelled.

        Args:
            hub: the box.
            opened: to be called with where clients reach it, once they do; again after a loss of connection.

        Raises:
            EdgeError: it cannot be opened; one line for people.
        """
        ...


async def in_thread(work: Callable[[], Result]) -> Result:
    """Do blocking work in a thread of its own."""
    return await asyncio.get_running_loop().run_in_executor(_threads, work)


async def for_client(work: Callable[[Cancellation], Result]) -> Result:
    """Do a client's work in a thread; if this task is cancelled because the client went away, the work is too."""
    cancellation = Cancellation()
    try:
        return await in_thread(lambda: work(cancellation))
    except asyncio.CancelledError:
        cancellation.cancel()
        raise


async def stop_now(hub: Hub) -> list[str]:
    """Stop everything, in a thread that no request can hold; return what is not known to have stopped."""
    return await asyncio.get_running_loop().run_in_executor(_stoppers, hub.stop)


async def serve_doors(hub: Hub, doors: Sequence[Door], tell: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serve through all doors until `stop` is set. A door that cannot be opened, or fails, leaves the others open.

    Raises:
        EdgeError: none is open (any more); the last one's reason.
    """
    tasks = {asyncio.create_task(_serve(hub, door, tell), name=door.name): door for door in doors}
    waiting: asyncio.Task[Any] = asyncio.create_task(stop.wait(), name="stop")
    reason: EdgeError | None = None
    try:
        while tasks and not stop.is_set():
            done, _ = await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
            for task in [one for one in tasks if one in done]:
                reason = task.result() or reason
                del tasks[task]
        if reason and not tasks:
            raise reason
    finally:
        for task in (*tasks, waiting):
            task.cancel()
        await asyncio.gather(*tasks, waiting, return_exceptions=True)


async def _serve(hub: Hub, door: Door, tell: Callable[[str], None]) -> EdgeError | None:
    """Serve through one door; return why it cannot (any more)."""

    def opened(where: str) -> None:
        hub.doors[door.name] = OPEN
        tell(f"{door.name}: {where}")

    hub.doors[door.name] = "opening"
    try:
        await door.serve(hub, opened)
    except EdgeError as error:
        hub.doors[door.name] = str(error)
        hub.tell(f"{door.name}: {error}{f'; hint: {error.hint}' if error.hint else ''}")
        return error
    return None
