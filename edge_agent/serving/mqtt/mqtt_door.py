"""The MQTT door: a box at a broker, where it is asked and commanded, says how all is, and greets Home Assistant.

Under TOPIC/SITE, retained: `availability`, `state/DEVICE`, `state/DEVICE/availability`, `last_action`, `health`.
Clients publish to `ask`, `confirm`, `command/DEVICE[/ACTION or PROPERTY]` and `stop`; answers go to their response
topic, or else to `answer`, `stopped` and, of what could not be worked, `errors`. A command that was not carried out is
told on `refused/DEVICE`, and the device's true state is published again, so that switches jump back.

Retained commands are refused: they would act again at each connection. `stop` is taken in whatever form it comes. What
came in the last minutes with the same id, or the same correlation data and payload, is answered again and not worked.

Does not guard against: who may publish, and who reads along: the broker's users and access rules do. Whoever may
publish to `ask` chooses where its answer goes (MQTT 5), outside of the box's own topics and Home Assistant's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from devices.errors import EdgeError, UnavailableError, UsageError
from devices.site.describe import plain_text
from devices.site.tools import Command
from edge_agent.serving.configuration import MqttDoor
from edge_agent.serving.door import for_client, in_thread, stop_now
from edge_agent.serving.feed import Listener
from edge_agent.serving.hub import Hub
from edge_agent.serving.mqtt.connection import Connection, Filter, Heard
from edge_agent.serving.mqtt.home_assistant_discovery import announced_filter, announcements
from edge_agent.serving.mqtt.requests import Ask, Confirm, Topics, parse_ask, parse_command, parse_confirm
from edge_agent.serving.mqtt.retained_messages import OFFLINE, Telling, as_json
from edge_agent.serving.mqtt.sessions import Conversations, Seen

HEALTH_S = 60.0
SWEEP_S = 1.0  # in which the broker has sent what it keeps of earlier announcements
MOST_AT_ONCE, MOST_STOPS = 64, 4  # requests on their way
NEEDS_YES = "it needs a yes, which cannot be given here: ask for it in words"
Body = dict[str, Any]


class MqttServer:
    """Serves a box at one broker until cancelled; a broker that is not there is tried again for ever.

    Args:
        configuration: where the broker is, and what is announced.
    """

    name = "mqtt"

    def __init__(self, configuration: MqttDoor) -> None:
        self._configuration = configuration

    async def serve(self, hub: Hub, opened: Callable[[str], None]) -> None:
        """Serve until cancelled. Raises UsageError: a setting can never work; whatever may change is tried again."""
        visit = _Visit(hub, self._configuration, opened)
        with hub.feed.listening() as listener:
            visit.connection.start()
            try:
                await visit.follow(listener)
            finally:
                await visit.close()


class _Visit:
    """A box while it is served at a broker. All of it runs in the event loop, but for what blocks."""

    def __init__(self, hub: Hub, settings: MqttDoor, opened: Callable[[str], None]) -> None:
        self._hub, self._settings, self._opened = hub, settings, opened
        self._topics = Topics(f"{settings.topic}/{hub.site.name}")
        self._birth = f"{settings.discovery_prefix}/status"
        self._swept = [announced_filter(hub.site, settings.discovery_prefix)]
        self._swept += [self._topics.state("+"), self._topics.availability("+")]
        will = self._topics.availability(), OFFLINE
        self.connection = Connection(settings, f"edgewright-{hub.site.name}", will, self._filters(), self)
        self._telling = Telling(hub, self._topics, partial(self.connection.publish, retain=True))
        self._announced = announcements(hub.site, self._topics, settings.discovery_prefix, settings.discovery, hub.name)
        self._conversations, self._seen = Conversations(hub.make_session), Seen()
        self._said: set[str] = set()  # since the connection was lost
        self._is_swept, self._stops = False, 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrival: asyncio.Task[None] | None = None
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def _filters(self) -> list[Filter]:
        asked = [self._topics(one) for one in ("ask", "confirm", "command/+", "command/+/+")]
        return [
            Filter(self._topics("stop")),
            *(Filter(one, shows_retained=True) for one in asked),
            *(Filter(one, with_kept=True) for one in (self._birth, *self._swept)),
        ]

    async def follow(self, listener: Listener) -> None:
        """Tell the broker what happens, until cancelled."""
        self._start(self._tell_health(), "health")
        async for news in listener:
            if news.kind == "journal":
                self._telling.actions([news.body])
            elif news.kind == "problem" or (news.kind == "state" and self._telling.states(news.body["state"])):
                await self._telling.health(only_if_changed=True)

    async def _tell_health(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_S)
            await self._telling.health()

    async def close(self) -> None:
        """Give up what is on its way, say goodbye, and leave the broker."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await in_thread(self.connection.close)

    def ready(self) -> None:
        """The connection is there: tell everything, and what of the box is kept there no longer is so."""
        self._said.clear()
        self._is_swept = False
        self._telling.forget()
        self._opened(f"{self.connection.where}, topics under {self._topics.base}")
        if self._arrival:
            self._arrival.cancel()
        self._arrival = self._start(self._arrive(), "arrival")

    async def _arrive(self) -> None:
        await self._telling.all()
        await asyncio.sleep(SWEEP_S)
        self.connection.unsubscribe(self._swept)
        self._is_swept = True
        self._announce()
        await self._telling.health(only_if_changed=True)  # the other doors have had time to open

    def lost(self, reason: str, *, is_refusal: bool = False) -> None:
        """The connection is lost or could not be made: say so once, and once each why the broker lets nobody in."""
        self._hub.doors[MqttServer.name] = reason
        if (key := reason if is_refusal else "lost") not in self._said:
            self._said |= {key, "lost"}
            self._hub.tell(f"{MqttServer.name}: {reason}; trying again")

    def warned(self, problem: str) -> None:
        """A subscription was refused."""
        self._hub.tell(f"{MqttServer.name}: {problem}")

    def heard(self, message: Heard) -> None:
        """Begin what a message asks for."""
        name = message.topic.removeprefix(f"{self._topics.base}/")
        if message.topic == self._birth:
            if message.payload == b"online" and self._is_swept:
                self._announce()
        elif name == "stop":
            self._start(self._stop(message), message.topic)
        elif name == message.topic:
            self._sweep(message, message.topic in self._announced)
        elif name.startswith("state/"):
            self._sweep(message, name.split("/")[1] in self._hub.site.devices)
        elif message.is_retained:
            self._say(message, "errors", _problem(name, UsageError("a retained message is not worked")))
        elif len(self._tasks) >= MOST_AT_ONCE:
            self._say(message, "errors", _problem(name, UnavailableError("too many requests are on their way")))
        else:
            self._start(self._work(message, name), message.topic)

    def _announce(self) -> None:
        for topic, config in self._announced.items():
            self.connection.publish(topic, as_json(config), retain=True)

    def _sweep(self, message: Heard, is_known: bool) -> None:
        """Remove what the broker keeps of a device, or of an announcement, that is no more."""
        if message.is_retained and message.payload and not is_known:
            self.connection.publish(message.topic, "", retain=True)

    async def _stop(self, message: Heard) -> None:
        if self._stops >= MOST_STOPS:
            return
        self._stops += 1
        try:
            problems = await stop_now(self._hub)
        finally:
            self._stops -= 1
        self._say(message, "stopped", {"stopped": not problems, "problems": problems})
        self._telling.states(await in_thread(self._hub.state))

    async def _work(self, message: Heard, name: str) -> None:
        """Work a request that is not worked already, and answer it."""
        key = ""
        try:
            if message.response_topic:
                self._topics.require_answerable(message.response_topic, self._settings.discovery_prefix)
            work, id_ = self._parsed(message, name)
            key, is_marked = _key(message, id_), bool(id_ or message.correlation or message.is_repeated)
            if is_marked and key in self._seen:
                topic, body = self._seen.answer(key)
                if not body:  # it is still being worked, and will be answered then
                    return
            else:
                self._seen.note(key)
                topic, body = "answer", await work()
        except EdgeError as error:
            topic, body = "errors", _problem(name, error)
        if key:
            self._seen.note(key, topic, body)
        if topic == "errors" or message.response_topic or not name.startswith("command/"):
            self._say(message, topic, body)

    def _parsed(self, message: Heard, name: str) -> tuple[Callable[[], Coroutine[Any, Any, Body]], str]:
        """Return what is to be done, and the id that the client gave it or ""."""
        if name == "ask":
            ask = parse_ask(message.payload)
            return partial(self._ask, ask, message.response_topic), ask.id
        if name == "confirm":
            return partial(self._confirm, parse_confirm(message.payload), message.response_topic), ""
        command, id_ = parse_command(self._hub.site, name.split("/")[1:], message.payload)
        return partial(self._command, command), id_

    async def _ask(self, ask: Ask, response_topic: str) -> Body:
        session, name = self._conversations.find(ask.session, response_topic)
        async with self._lock(session.id):
            turn = await for_client(lambda cancellation: session.ask(ask.text, cancellation))
        return turn.to_json() | {"session": name or None} | ({"id": ask.id} if ask.id else {})

    async def _confirm(self, confirm: Confirm, response_topic: str) -> Body:
        session, name = self._conversations.known(confirm.session, response_topic)
        async with self._lock(session.id):
            turn = await in_thread(lambda: session.confirm(confirm.id, is_yes=confirm.is_yes))
        return turn.to_json() | {"session": name}

    async def _command(self, command: Command) -> Body:
        """Carry out a command as a session of its own, so that nothing can confirm it; a device's go in order."""
        session = self._conversations.alone(f"{MqttServer.name} {command.device}")
        async with self._lock(f"device {command.device}"):
            turn = await for_client(lambda cancellation: session.command(command, cancellation))
            body = turn.to_json() | {"confirmations": [], "session": None}
            done = body["actions"][0]
            if done["status"] not in {"done", "dry_run"}:
                reason = turn.outcomes[0].result.get("reason", NEEDS_YES if turn.confirmations else "")
                self.connection.publish(self._topics(f"refused/{command.device}"), as_json(done | {"reason": reason}))
            self._telling.states(await in_thread(self._hub.state), again=command.device)
        return body

    def _lock(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    def _say(self, message: Heard, name: str, body: Body) -> None:
        """Answer a message at its response topic, or else at one of ours."""
        topic = self._topics(name)
        if message.response_topic:
            try:
                self._topics.require_answerable(message.response_topic, self._settings.discovery_prefix)
                topic = message.response_topic
            except UsageError:
                pass
        self.connection.publish(topic, as_json(body), correlation=message.correlation)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):  # a fault of ours, which ends one request only
            self._hub.tell(f"{MqttServer.name}: {task.get_name()}: {type(error).__name__}: {plain_text(str(error))}")


def _problem(name: str, error: EdgeError) -> Body:
    return {"topic": plain_text(name), "error": str(error), "hint": error.hint}


def _key(message: Heard, id_: str) -> str:
    """Return what a request is known by: its id, or else all of it with its correlation data or packet's number."""
    if id_:
        return f"{message.topic}\0{message.response_topic}\0{id_}"
    mark = message.correlation.hex() or str(message.packet)
    return f"{message.topic}\0{message.response_topic}\0{mark}\0{message.payload.hex()}"
