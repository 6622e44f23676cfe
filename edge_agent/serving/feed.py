"""News of a box for whoever listens: journal entries and states, from any thread into asyncio.

A listener that does not keep up loses the oldest news, and is told how many.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

MOST_NEWS = 256


@dataclass(frozen=True)
class News:
    """One piece: `kind` is journal, state or problem; `body` is plain data as JSON has it."""

    kind: str
    body: dict[str, Any]


class Listener:
    """What one listener has not read yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._news = loop, deque[News](maxlen=MOST_NEWS)
        self._is_there = asyncio.Event()
        self.lost = 0

    def put(self, news: News) -> None:
        """Add a piece, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._put, news)

    def _put(self, news: News) -> None:
        self.lost += len(self._news) == MOST_NEWS
        self._news.append(news)
        self._is_there.set()

    async def __aiter__(self) -> AsyncIterator[News]:
        async for news in self.until(asyncio.Event()):
            yield news

    async def until(self, end: asyncio.Event) -> AsyncIterator[News]:
        """Yield what there is, and what comes, until `end` is set."""
        ending = asyncio.create_task(end.wait())
        try:
            while not end.is_set():
                coming = asyncio.create_task(self._is_there.wait())
                try:
                    await asyncio.wait((coming, ending), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    coming.cancel()
                while self._news:
                    yield self._news.popleft()
                self._is_there.clear()
        finally:
            ending.cancel()


class Feed:
    """Hands each piece of news to every listener."""

    def __init__(self) -> None:
        self._lock, self._listeners = threading.Lock(), set[Listener]()

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def publish(self, kind: str, body: dict[str, Any]) -> None:
        """Tell all listeners; for any thread."""
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.put(News(kind, body))

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """Give a listener in the running event loop, which hears what is published from now on."""
        listener = Listener(asyncio.get_running_loop())
        with self._lock:
            self._listeners.add(listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)
