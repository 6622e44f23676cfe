"""Work for an HTTP client for as long as it is connected: one that goes away lets go of the engine at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request

from edge_agent.serving.door import for_client
from edge_agent.serving.engine_queue import Cancellation, Cancelled

Result = TypeVar("Result")


async def while_connected(request: Request, work: Callable[[Cancellation], Result]) -> Result:
    """Do blocking work in a thread. Raises Cancelled if the client goes away before it is done."""
    return await or_gone(request, for_client(work))


async def or_gone(request: Request, coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Await something for a client whose request's body was read. Raises Cancelled if the client goes away first."""
    task, gone = asyncio.create_task(coroutine), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Cancelled("the client went away")
    finally:
        for one in (task, gone):
            one.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await one


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
