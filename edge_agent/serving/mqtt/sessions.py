"""Whom an MQTT door talks with, and what it has heard already.

A session belongs to a name that the client gives, or to the topic at which it wants its answers (MQTT 5's response
topic). Without either a request stands alone, and nothing can confirm what it led to.

Does not guard against: a client that reads another's session name, unless the broker's access rules do.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from devices.errors import RefusedError
from edge_agent.serving.session import Session

MOST_SESSIONS = 64
SEEN_S, MOST_SEEN = 300.0, 1024


class Seen:
    """Which requests came in the last minutes, and what was answered: none that comes twice is worked twice."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[float, str, dict[str, Any]]] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        """Return whether it came."""
        return key in self._seen and time.monotonic() - self._seen[key][0] <= SEEN_S

    def note(self, key: str, topic: str = "", body: dict[str, Any] | None = None) -> None:
        """Note that it came, and once there is one its answer and where that goes."""
        self._seen[key] = (time.monotonic(), topic, body or {})
        self._seen.move_to_end(key)
        while len(self._seen) > MOST_SEEN:
            self._seen.popitem(last=False)

    def answer(self, key: str) -> tuple[str, dict[str, Any]]:
        """Return where an answer went, and it; "" and nothing while there is none."""
        _, topic, body = self._seen[key]
        return topic, body


class Conversations:
    """Sessions of a door's clients by name or response topic; of many, the one not used for longest is dropped.

    Args:
        make: a session of a client. They are the door's own: strangers cannot push out those of other doors.
    """

    def __init__(self, make: Callable[[str], Session]) -> None:
        self._make = make
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()

    def alone(self, client: str) -> Session:
        """Return a session for one request, which nobody finds again."""
        return self._make(client)

    def find(self, name: str, response_topic: str) -> tuple[Session, str]:
        """Return the session to be asked, and the name under which it is found again, "" if it is not."""
        if not name and not response_topic:
            return self.alone("mqtt"), ""
        key = self._key(name, response_topic)
        session = self._sessions.get(key) or self._make(f"mqtt {key[1]}")
        self._sessions[key] = session
        self._sessions.move_to_end(key)
        if len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session, key[1] if key[0] == "name" else session.id

    def known(self, name: str, response_topic: str) -> tuple[Session, str]:
        """Return as `find`, but of sessions that are there. Raises RefusedError: in no other can something wait."""
        if self._key(name, response_topic) not in self._sessions:
            raise RefusedError("nothing waits for this yes", hint="give the session of the answer that asked for it")
        return self.find(name, response_topic)

    def _key(self, name: str, response_topic: str) -> tuple[str, str]:
        if not name:
            return "topic", response_topic
        of_topic = (key for key, one in self._sessions.items() if key[0] == "topic" and one.id == name)
        return next(of_topic, ("name", name))
