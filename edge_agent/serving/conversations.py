"""Hub sessions by what a protocol calls a conversation, for doors whose clients come again over other connections."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edge_agent.serving.hub import Hub
from edge_agent.serving.session import Session


class Conversation:
    """One client's session. It is dropped where a turn fails or is cancelled: no later words may be a yes for that."""

    def __init__(self, hub: Hub, client: str, *, is_single: bool) -> None:
        self._hub, self._client, self._is_single = hub, client, is_single
        self._session: Session | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Session]:
        """Give the session to one request, and to the questions that belong to it."""
        async with self._lock:
            session = self._session or self._hub.open_session(self._client)
            self._session = None
            yield session
            self._session = session
            if self._is_single and not session.is_waiting:
                self._hub.close_session(session.id)


class Conversations:
    """The conversations of one door's clients, of which the latest are kept."""

    def __init__(self, hub: Hub, most: int) -> None:
        self._hub, self._most = hub, most
        self._kept = OrderedDict[str, Conversation]()

    def of(self, key: str, client: str) -> Conversation:
        """Return the conversation of a key that only its client knows, or one that nobody gets again for ""."""
        found = self._kept.pop(key, None) or Conversation(self._hub, client, is_single=not key)
        if key:
            self._kept[key] = found
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return found
