"""What a broker keeps of a box, as retained messages: states, who answers, the last action, and how the box is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from devices.errors import EdgeError
from edge_agent.serving.door import in_thread
from edge_agent.serving.hub import Hub, plain_event
from edge_agent.serving.mqtt.requests import Topics

ONLINE, OFFLINE = "online", "offline"
LAST_EVENTS = 64  # of the journal, in which the last action is looked for
MOST_PROPOSALS = 256


def as_json(body: Mapping[str, Any]) -> str:
    """Return plain data as a payload."""
    return json.dumps(body, ensure_ascii=False)


class Telling:
    """Publishes what is so when it has changed; all of it again after `forget`.

    Args:
        hub: the box.
        topics: where it speaks.
        keep: publishes a retained payload to a topic.
    """

    def __init__(self, hub: Hub, topics: Topics, keep: Callable[[str, str], None]) -> None:
        self._hub, self._topics, self._keep = hub, topics, keep
        self._told: dict[str, str] = {}
        self._proposals: dict[int, dict[str, Any]] = {}
        self._status = ""
        self._silent: frozenset[str] = frozenset()

    def forget(self) -> None:
        """Note that the broker may know nothing of what was told."""
        self._told.clear()

    async def all(self) -> None:
        """Tell everything that may have changed unheard; states first, or old ones would count while these are read."""
        self.states(await in_thread(self._hub.state))
        self._put(self._topics.availability(), ONLINE)
        self.actions([plain_event(one) for one in await in_thread(lambda: self._hub.events(LAST_EVENTS))])
        await self.health()

    def states(self, state: Mapping[str, Mapping[str, Any]], again: str = "") -> bool:
        """Tell states that have changed, and that of the device `again` in any case.

        A device that does not answer keeps its last state, and is said to be offline.

        Returns:
            Whether other devices do not answer than before.
        """
        silent = set[str]()
        for name, device in self._hub.site.devices.items():
            values = state.get(name, {})
            is_silent = bool(device.properties) and not values
            self._put(self._topics.availability(name), OFFLINE if is_silent else ONLINE)
            if is_silent:
                silent.add(name)
            else:
                self._put(self._topics.state(name), as_json(values), again=name == again)
        has_changed, self._silent = silent != self._silent, frozenset(silent)
        return has_changed

    def actions(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Tell what came of the last command in these journal entries (hub.plain_event), if one says so."""
        last: dict[str, Any] = {}
        for event in events:
            number, body = event["command"], event["body"]
            if event["event"] == "PROPOSED":
                self._proposals[number] = body
            elif "report" in body:
                proposed = self._proposals.pop(number, {})
                last = {"report": body["report"], "status": event["event"].lower(), "command": number}
                last |= {key: proposed[key] for key in ("device", "action", "input") if key in proposed}
                time_s = event["time_s"] if self._hub.is_live else time.time()  # a simulated clock knows no date
                last["time"] = datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")
        while len(self._proposals) > MOST_PROPOSALS:
            del self._proposals[min(self._proposals)]
        if last:
            self._put(self._topics("last_action"), as_json(last))

    async def health(self, *, only_if_changed: bool = False) -> None:
        """Tell how the box is."""
        try:
            health = await in_thread(self._hub.health)
        except EdgeError:  # whatever it is, its own problem is told of it
            return
        if not only_if_changed or health["status"] != self._status:
            self._status = health["status"]
            self._put(self._topics("health"), as_json(health))

    def _put(self, topic: str, payload: str, *, again: bool = False) -> None:
        if again or self._told.get(topic) != payload:
            self._told[topic] = payload
            self._keep(topic, payload)
