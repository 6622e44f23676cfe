"""The MQTT door at a real broker (mosquitto), asked by a real client (paho): answers, yeses, commands, stop, losses."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.errors import UsageError
from edge_agent.serving.configuration import MqttDoor
from edge_agent.serving.door import serve_doors
from edge_agent.serving.hub import Hub
from edge_agent.serving.mqtt import connection, mqtt_door, sessions
from edge_agent.serving.mqtt.mqtt_door import MqttServer
from edge_agent.serving.mqtt.sessions import Conversations
from tests.edge_agent.serving.conftest import ANSWER, ScriptedEngine

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
pytestmark = [
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.skipif(MOSQUITTO is None, reason="the broker mosquitto is not installed"),
]
LIMIT_S = 10.0
SITE = "edgewright/home"
SAID = ANSWER.rpartition(">")[2]


def wait_until(check: Callable[[], object], what: str = "") -> None:
    end_s = time.monotonic() + LIMIT_S
    while not check():
        assert time.monotonic() < end_s, what
        time.sleep(0.01)


class Mosquitto:
    """A broker on a free port, which can be stopped and started again; it keeps nothing on the disk."""

    made: ClassVar[list[Mosquitto]] = []

    def __init__(self, folder: Path, lines: str = "allow_anonymous true") -> None:
        self.made.append(self)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._configuration = folder / "mosquitto.conf"
        self._configuration.write_text(
            f"user root\npersistence false\nset_tcp_nodelay true\nlistener {self.port} 127.0.0.1\n{lines}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._listens, "mosquitto does not listen")

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(LIMIT_S)
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Listener:
    """A client that hears everything; messages in the order in which they came."""

    def __init__(self, port: int) -> None:
        self.heard: list[MQTTMessage] = []
        self._ready = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self.client.on_message = lambda _client, _data, message: self.heard.append(message)
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self._ready.wait(LIMIT_S)

    def say(
        self, topic: str, payload: str | bytes = "", answer_at: str = "", correlation: bytes = b"", **how: Any
    ) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if answer_at:
            properties.ResponseTopic = answer_at
        if correlation:
            properties.CorrelationData = correlation
        self._said = self.client.publish(topic, payload, qos=1, properties=properties, **how)

    def settle(self) -> None:
        """Wait until the broker has what was said."""
        self._said.wait_for_publish(LIMIT_S)

    def all(self, topic: str) -> list[MQTTMessage]:
        return [one for one in self.heard if one.topic == topic]

    def next(self, topic: str, check: Callable[[Any], object] = lambda body: True) -> Any:
        """Wait for a message that fits, forget it and what came before on its topic, and return its JSON or text."""
        found: list[Any] = []

        def look() -> bool:
            for message in self.all(topic):
                text = message.payload.decode()
                body = json.loads(text) if text.startswith("{") else text
                if check(body):
                    found.append(body)
                    end = self.heard.index(message)
                    self.heard[: end + 1] = [one for one in self.heard[: end + 1] if one.topic != topic]
                    return True
            return False

        wait_until(look, f"nothing that fits on {topic}")
        return found[0]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Served:
    """A hub behind the MQTT door, in a thread of its own."""

    def __init__(self, hub: Hub, port: int, **settings: Any) -> None:
        self.told: list[str] = []
        self.server = MqttServer(MqttDoor(host="127.0.0.1", port=port, **settings))
        self._hub, self._stop, self._loop = hub, asyncio.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(serve_doors(self._hub, [self.server], self.told.append, self._stop))
        except UsageError as error:
            self.told.append(f"ended: {error}")
        finally:
            self._loop.close()

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(mqtt_door, "SWEEP_S", 0.2)
    yield
    while Mosquitto.made:
        Mosquitto.made.pop().stop()


@pytest.fixture
def broker(tmp_path: Path, quick: None) -> Mosquitto:
    made = Mosquitto(tmp_path)
    made.start()
    return made


@pytest.fixture
def listener(broker: Mosquitto) -> Iterator[Listener]:
    made = Listener(broker.port)
    yield made
    made.close()


@pytest.fixture
def served(hub: Hub, broker: Mosquitto, listener: Listener) -> Iterator[Served]:
    made = Served(hub, broker.port)
    listener.next(f"{SITE}/availability", lambda body: body == "online")
    wait_until(lambda: made.told)
    yield made
    made.close()


def is_on(hub: Hub, device: str = "kitchen_light") -> bool:
    return bool(hub.state()[device]["on"])


def is_locked(hub: Hub) -> bool:
    return bool(hub.state()["front_door"]["locked"])


def commands(hub: Hub) -> int:
    return sum(event.event == "PROPOSED" for event in hub.events(10_000))


def test_a_request_is_answered_where_the_client_wants_it(hub: Hub, served: Served, listener: Listener) -> None:
    listener.say(f"{SITE}/ask", "kitchen light on", answer_at="mine/answers", correlation=b"\x00\x07")
    answer = listener.next("mine/answers")
    assert answer["answer"] == "The kitchen light is on." and is_on(hub)
    assert answer["actions"][0]["status"] == "done" and answer["session"]
    listener.say(f"{SITE}/ask", "what is it", answer_at="mine/answers", correlation=b"\x00\x08")
    wait_until(lambda: listener.all("mine/answers"))
    assert listener.all("mine/answers")[0].properties.CorrelationData == b"\x00\x08"
    assert not listener.all(f"{SITE}/answer")


def test_a_request_on_the_plain_topic_is_answered_there(hub: Hub, served: Served, listener: Listener) -> None:
    listener.say(f"{SITE}/ask", "what is the weather")
    answer = listener.next(f"{SITE}/answer")
    assert answer["answer"] == SAID and answer["session"] is None and answer["confirmations"] == []
    listener.say(f"{SITE}/ask", json.dumps({"text": "kitchen light on", "session": "tablet", "id": "7"}))
    answer = listener.next(f"{SITE}/answer")
    assert (answer["session"], answer["id"]) == ("tablet", "7") and is_on(hub)


def test_a_yes_belongs_to_its_session(hub: Hub, served: Served, listener: Listener) -> None:
    listener.say(f"{SITE}/ask", "unlock the front door", answer_at="mine")
    asked = listener.next("mine")
    wanted = {"id": asked["confirmations"][0]["id"], "yes": True}
    listener.say(f"{SITE}/ask", "yes", answer_at="other")
    assert listener.next("other")["answer"] == SAID
    for thief in ({"session": "other"}, {"session": ""}, {}):
        listener.say(f"{SITE}/confirm", json.dumps(wanted | thief), answer_at="other")
        assert "nothing waits" in listener.next("other")["error"]
    listener.say(f"{SITE}/confirm", json.dumps(wanted))
    assert "nothing waits" in listener.next(f"{SITE}/errors")["error"]
    assert is_locked(hub)
    listener.say(f"{SITE}/confirm", json.dumps(wanted | {"session": asked["session"]}), answer_at="mine")
    assert listener.next("mine")["answer"] == "The front door is unlocked." and not is_locked(hub)
    listener.say(f"{SITE}/command/front_door", "lock")
    listener.next(f"{SITE}/state/front_door", lambda body: body["locked"])
    listener.say(f"{SITE}/confirm", json.dumps(wanted | {"session": asked["session"]}))
    assert "nothing waits" in listener.next(f"{SITE}/errors")["error"] and is_locked(hub)


def test_a_yes_in_words_counts_in_a_named_session_only(hub: Hub, served: Served, listener: Listener) -> None:
    listener.say(f"{SITE}/ask", "unlock the front door")
    assert listener.next(f"{SITE}/answer")["confirmations"]
    listener.say(f"{SITE}/ask", "yes")
    assert listener.next(f"{SITE}/answer")["answer"] == SAID and is_locked(hub)
    for text, answer in (("unlock it", "Please confirm"), ("yes", "The front door is unlocked.")):
        listener.say(f"{SITE}/ask", json.dumps({"text": text, "session": "wall panel"}))
        assert listener.next(f"{SITE}/answer")["answer"].startswith(answer)
    assert not is_locked(hub)


def test_no_asks_for_no_change(hub: Hub, served: Served, listener: Listener) -> None:
    listener.say(f"{SITE}/ask", "unlock", answer_at="mine")
    id_ = listener.next("mine")["confirmations"][0]["id"]
    listener.say(f"{SITE}/confirm", json.dumps({"id": id_, "yes": False}), answer_at="mine")
    assert listener.next("mine")["answer"] == "I left it as it was." and is_locked(hub)


def test_a_retained_command_is_never_worked(hub: Hub, broker: Mosquitto, listener: Listener) -> None:
    listener.say(f"{SITE}/command/kitchen_light", "on", retain=True)
    listener.say(f"{SITE}/ask", "kitchen light on", retain=True)
    listener.say(f"{SITE}/stop", "now", retain=True)
    listener.settle()
    served = Served(hub, broker.port)
    listener.next(f"{SITE}/availability", lambda body: body == "online")
    listener.next("homeassistant/device/edgewright_home/device_hall_motion/config")  # all that is kept has come
    listener.say(f"{SITE}/command/porch_light", "on", retain=True)
    assert "retained" in listener.next(f"{SITE}/errors")["error"]
    listener.say(f"{SITE}/ask", "what is it")  # each after the other: nothing of these is on its way any more
    listener.next(f"{SITE}/answer")
    assert commands(hub) == 0 and not listener.all(f"{SITE}/stopped")
    served.close()


def test_a_request_that_comes_twice_is_worked_once(hub: Hub, served: Served, listener: Listener) -> None:
    for _ in range(3):
        listener.say(f"{SITE}/command/bathroom_fan", '{"action": "set", "input": {"speed": 2}, "id": "a"}', "mine")
        assert listener.next("mine")["answer"] == "The bathroom fan speed is 2."
    assert commands(hub) == 1
    for _ in range(3):
        listener.say(f"{SITE}/ask", "kitchen light on", answer_at="mine", correlation=b"1")
        assert listener.next("mine")["answer"] == "The kitchen light is on."
    assert commands(hub) == 2
    listener.say(f"{SITE}/ask", "kitchen light off", answer_at="mine", correlation=b"1")
    assert listener.next("mine")["answer"] == "The kitchen light is off." and commands(hub) == 3
    listener.say(f"{SITE}/command/kitchen_light", "on")
    listener.next(f"{SITE}/state/kitchen_light", lambda body: body["on"])
    listener.say(f"{SITE}/command/kitchen_light", "on")
    wait_until(lambda: commands(hub) == 5)  # without a mark it is another one


def test_unlocking_by_a_command_is_refused_and_the_state_said_again(
    hub: Hub, served: Served, listener: Listener
) -> None:
    assert listener.next(f"{SITE}/state/front_door")["locked"]
    for topic, payload in (("", "unlock"), ("/locked", "OFF"), ("/unlock", "PRESS"), ("/locked", "unlocked")):
        listener.say(f"{SITE}/command/front_door{topic}", payload)
        refused = listener.next(f"{SITE}/refused/front_door")
        assert refused["status"] == "needs_confirmation" and "needs a yes" in refused["reason"]
        assert refused["report"] == "Please confirm that the front door should be unlocked."
        assert listener.next(f"{SITE}/state/front_door")["locked"]
        last = listener.next(f"{SITE}/last_action")
        assert (last["status"], last["device"]) == ("needs_confirmation", "front_door") and last["time"]
    listener.say(f"{SITE}/ask", "yes")
    listener.next(f"{SITE}/answer")
    assert is_locked(hub)


def test_an_interlock_refuses(hub: Hub, served: Served, listener: Listener) -> None:
    assert hub.runtime.world
    hub.runtime.world.set("rain_tank", {"level_pct": 5})
    listener.say(f"{SITE}/command/well_pump/run", '{"seconds": 20}', answer_at="mine")
    body = listener.next("mine")
    assert body["actions"][0]["status"] == "refused" and not body["confirmations"]
    assert "the rain tank level is 5 percent" in listener.next(f"{SITE}/refused/well_pump")["reason"]
    assert not hub.state()["well_pump"]["running"]


def test_commands_work_as_home_assistant_gives_them(hub: Hub, served: Served, listener: Listener) -> None:
    for topic, payload, device, wanted in (
        ("kitchen_light/brightness", "40", "kitchen_light", {"on": True, "brightness": 40}),
        ("kitchen_light", "off", "kitchen_light", {"on": False}),
        ("workshop_outlet/on", "ON", "workshop_outlet", {"on": True}),
        ("hall_thermostat/set", "21.0", "hall_thermostat", {"target_c": 21}),
        ("living_blinds/set", "30", "living_blinds", {"position": 30}),
        ("living_blinds", "close", "living_blinds", {"position": 0}),
        ("bathroom_fan/set", "3", "bathroom_fan", {"speed": 3}),
        ("garden_sprinkler/water", "5", "garden_sprinkler", {"open": True}),
        ("garden_sprinkler", "close", "garden_sprinkler", {"open": False}),
        ("well_pump/run", '{"seconds": 120}', "well_pump", {"running": True}),
    ):
        listener.say(f"{SITE}/command/{topic}", payload)
        listener.next(f"{SITE}/state/{device}", lambda body, wanted=wanted: wanted.items() <= body.items())
    assert not listener.all(f"{SITE}/errors")


def test_stop_needs_no_engine_and_no_turn(hub: Hub, served: Served, listener: Listener, engine: ScriptedEngine) -> None:
    listener.say(f"{SITE}/command/well_pump/run", "60")
    listener.next(f"{SITE}/state/well_pump", lambda body: body["running"])
    engine.hold.clear()
    for number in range(3):
        listener.say(f"{SITE}/ask", f"what {number}")
    listener.say(f"{SITE}/stop", b"\xff" * 9000, retain=True)  # whoever presses it may have it so
    assert listener.next(f"{SITE}/stopped") == {"stopped": True, "problems": []}
    listener.next(f"{SITE}/state/well_pump", lambda body: not body["running"])
    engine.hold.set()


def test_the_will_is_told_when_the_connection_is_cut_and_all_is_well_afterwards(
    hub: Hub, listener: Listener, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[connection.Connection] = []
    begin = connection.Connection.start
    monkeypatch.setattr(connection.Connection, "start", lambda self: (made.append(self), begin(self))[1])
    served = Served(hub, broker.port)
    topic = f"{SITE}/availability"
    listener.next(topic, lambda body: body == "online")
    wait_until(lambda: not made[0]._client._out_messages)  # what is not acknowledged comes once more after the cut
    made[0]._client.socket().shutdown(socket.SHUT_RDWR)
    listener.next(topic, lambda body: body == "offline")
    listener.next(topic, lambda body: body == "online")
    assert len(served.told) == 2 and len(hub.problems) == 1 and "is lost" in hub.problems[0]
    listener.say(f"{SITE}/ask", "kitchen light on")
    assert listener.next(f"{SITE}/answer")["answer"] == "The kitchen light is on."
    served.close()
    assert listener.next(topic) == "offline"


def test_a_broker_that_comes_later_is_found(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LONGEST_WAIT_S", 1)
    broker = Mosquitto(tmp_path)
    served = Served(hub, broker.port)
    wait_until(lambda: hub.problems)
    assert f"no connection to mqtt://127.0.0.1:{broker.port}: Connection refused" in hub.problems[0]
    assert hub.doors["mqtt"] != "open" and hub.health()["status"] == "degraded"
    time_s = time.monotonic() + 1.5
    wait_until(lambda: time.monotonic() > time_s)  # it was tried again meanwhile, and not said again
    broker.start()
    wait_until(lambda: hub.doors["mqtt"] == "open")
    assert len(hub.problems) == 1 and len(served.told) == 1
    listener = Listener(broker.port)
    listener.say(f"{SITE}/ask", "kitchen light on")
    assert listener.next(f"{SITE}/answer")["answer"] == "The kitchen light is on."
    broker.stop()
    wait_until(lambda: len(hub.problems) == 2)
    broker.start()
    wait_until(lambda: len(served.told) == 2)
    assert len(hub.problems) == 2
    listener.close()
    served.close()
    broker.stop()


@pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="mosquitto_passwd is not installed")
def test_a_wrong_password_is_said_and_the_right_one_opens(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "box", "right"], check=True, capture_output=True)
    broker = Mosquitto(tmp_path, f"allow_anonymous false\npassword_file {passwords}")
    broker.start()
    monkeypatch.setenv("BOX_PASSWORD", "wrong")
    served = Served(hub, broker.port, username="box", password_env="BOX_PASSWORD")
    wait_until(lambda: hub.problems)
    assert "lets us not in: Not authorized" in hub.problems[0] and not served.told
    served.close()
    monkeypatch.setenv("BOX_PASSWORD", "right")
    served = Served(hub, broker.port, username="box", password_env="BOX_PASSWORD")
    wait_until(lambda: hub.doors["mqtt"] == "open")
    served.close()
    broker.stop()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes a certificate, is not installed")
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")  # paho 2 leaves a handshake that failed
def test_a_broker_is_trusted_by_its_certificate(hub: Hub, tmp_path: Path) -> None:
    for name in ("mine", "other"):
        files = ["-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=broker"
        names = ["-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    keys = f"certfile {tmp_path}/mine.pem\nkeyfile {tmp_path}/mine.key"
    broker = Mosquitto(tmp_path, f"allow_anonymous true\n{keys}")
    broker.start()
    served = Served(hub, broker.port, tls=True, ca_file=str(tmp_path / "other.pem"))
    wait_until(lambda: hub.problems)
    assert "certificate verify failed" in hub.problems[0] and not served.told
    served.close()
    served = Served(hub, broker.port, tls=True, ca_file=str(tmp_path / "mine.pem"))
    wait_until(lambda: hub.doors["mqtt"] == "open")
    assert served.told == [f"mqtt: mqtts://127.0.0.1:{broker.port}, topics under {SITE}"]
    served.close()
    broker.stop()


def test_another_client_with_the_same_name_is_said(
    hub: Hub, served: Served, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST_QUICK_LOSSES", 2)
    other = Client(CallbackAPIVersion.VERSION2, "edgewright-home", protocol=MQTTProtocolVersion.MQTTv5)
    other.connect("127.0.0.1", broker.port)
    other.loop_start()
    wait_until(lambda: any("another client calls itself edgewright-home" in one for one in hub.problems))
    other.disconnect()
    other.loop_stop()


def test_a_device_that_does_not_answer_is_said_to_be_offline(
    hub: Hub, served: Served, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = f"{SITE}/state/porch_light"
    assert listener.next(f"{topic}/availability") == "online"
    assert listener.next(f"{SITE}/health")["silent_devices"] == []
    whole = hub.state
    monkeypatch.setattr(hub, "state", lambda: whole() | {"porch_light": {}})
    assert listener.next(f"{topic}/availability") == "offline"
    assert listener.next(f"{SITE}/health")["silent_devices"] == ["porch_light"]
    monkeypatch.setattr(hub, "state", whole)
    assert listener.next(f"{topic}/availability") == "online"
    assert listener.next(f"{SITE}/health")["status"] == "ok"
    assert [one.payload for one in listener.all(topic)] == [b'{"on": false}']  # its last state stayed


def test_leaving_waits_for_no_request(hub: Hub, served: Served, listener: Listener, engine: ScriptedEngine) -> None:
    engine.hold.clear()
    listener.say(f"{SITE}/ask", "kitchen light on")
    wait_until(lambda: hub.queue.figures.waiting or engine.prompts or hub.queue._is_busy)
    served.close()
    engine.hold.set()
    assert listener.next(f"{SITE}/availability", lambda body: body == "offline") and not is_on(hub)


def test_many_sessions_and_requests_are_forgotten(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Conversations(hub.open_session)
    first, name = made.find("a", "")
    assert made.find("a", "somewhere") == (first, "a") and made.find("", "a")[0] is not first
    mine, handle = made.find("", "mine")
    assert made.find(handle, "")[0] is mine and name == "a"
    for number in range(sessions.MOST_SESSIONS):
        made.find(f"n{number}", "")
    assert made.find("a", "")[0] is not first
    seen = sessions.Seen()
    seen.note("x")
    assert "x" in seen and "y" not in seen
    later_s = time.monotonic() + sessions.SEEN_S + 1
    monkeypatch.setattr(sessions.time, "monotonic", lambda: later_s)
    assert "x" not in seen


def test_what_listens_there_and_is_no_broker_is_said(hub: Hub) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        served = Served(hub, port)
        listening.accept()[0].close()
        wait_until(lambda: hub.problems)
        assert hub.problems[0].startswith(f"mqtt: no MQTT 5 from mqtt://127.0.0.1:{port}: ") and not served.told
        served.close()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"password_env": "NO_SUCH_VARIABLE"}, "has no NO_SUCH_VARIABLE"),
        ({"tls": True, "ca_file": "/nowhere.pem"}, "cannot use /nowhere.pem"),
    ],
)
def test_settings_that_can_never_work_end_the_door(hub: Hub, settings: dict[str, Any], problem: str) -> None:
    served = Served(hub, 1, **settings)
    served.close()
    assert problem in hub.problems[0]


STORM = [
    ("ask", '{"text": "kitchen light on", "session": "a", "id": "b"}'),
    ("confirm", '{"session": "a", "id": "b", "yes": true}'),
    ("command/kitchen_light", '{"action": "brightness", "input": {"brightness": 40}, "id": "x"}'),
    ("command/kitchen_light/brightness", '{"brightness": 40}'),
    ("command/front_door/locked", "false"),
    ("command/nothing/here", "ON"),
]


def broken(payload: bytes, chance: random.Random) -> bytes:
    """Return a payload with a fault: a bit turned, cut off, nested, far too long, a wild number, of other types."""
    at = chance.randrange(len(payload))
    return chance.choice(
        [
            payload[:at] + bytes([payload[at] ^ 0x80]) + payload[at + 1 :],
            b'{"' + payload[:at],
            b"{" * 4000,
            b'{"a":' * 700,
            b"[" * 4096,
            b"9" * 4000,
            b'{"brightness": 1e999, "text": NaN}',
            b'{"text": "\\ud800", "id": "a", "yes": true}',
            b'{"text": 1, "id": [], "yes": "true", "action": {}, "input": 3}',
            b"{" + payload * 200,
            b"\xff\xfe" + payload,
            b"{}",
            b'"',
        ]
    )


def test_a_storm_of_broken_payloads_moves_nothing_and_ends_nothing(
    hub: Hub, served: Served, listener: Listener
) -> None:
    chance, sent = random.Random(7), 0
    for _ in range(500):
        name, payload = chance.choice(STORM)
        body = broken(payload.encode(), chance)
        if name == "ask" and not body.startswith(b"{") and body.isascii() and len(body) <= 4096:
            continue  # plain text is a request
        listener.say(f"{SITE}/{name}", body)
        sent += 1
    assert sent > 400
    wait_until(lambda: len(listener.all(f"{SITE}/errors")) >= sent, "an error was not told")
    assert len(listener.all(f"{SITE}/errors")) == sent
    assert commands(hub) == 0 and not hub.problems
    assert all(len(one.payload) < 1000 and b"Traceback" not in one.payload for one in listener.all(f"{SITE}/errors"))
    listener.say(f"{SITE}/ask", "kitchen light on")
    assert listener.next(f"{SITE}/answer")["answer"] == "The kitchen light is on."


@pytest.mark.parametrize(
    "topic", [f"{SITE}/stop", f"{SITE}/ask", f"{SITE}/command/front_door/lock", "homeassistant/x/config", "$SYS/x"]
)
def test_no_answer_goes_where_it_would_be_taken_for_a_command(
    hub: Hub, served: Served, listener: Listener, topic: str
) -> None:
    listener.say(f"{SITE}/ask", "kitchen light on", answer_at=topic)
    assert "no answer can go to" in listener.next(f"{SITE}/errors")["error"]
    assert not listener.all(topic)[1:] and commands(hub) == 0
    listener.say(f"{SITE}/ask", "kitchen light on", answer_at=f"{SITE}/answer/me")
    assert listener.next(f"{SITE}/answer/me")["actions"]


def test_states_health_and_the_last_action_are_kept_at_the_broker(
    hub: Hub, served: Served, listener: Listener, broker: Mosquitto
) -> None:
    session = hub.open_session("another door")
    session.ask("kitchen light on")
    listener.next(f"{SITE}/state/kitchen_light", lambda body: body["on"])
    assert listener.next(f"{SITE}/last_action")["report"] == "The kitchen light is on."
    late = Listener(broker.port)
    assert late.next(f"{SITE}/state/kitchen_light") == {"on": True, "brightness": 100}
    assert late.next(f"{SITE}/state/kitchen_light/availability") == "online"
    assert late.next(f"{SITE}/health")["site"] == "home"
    last = late.next(f"{SITE}/last_action")
    assert last["status"] == "done" and last["device"] == "kitchen_light" and last["command"] == 1
    late.close()


def test_states_are_told_before_the_box_is_said_to_be_there(hub: Hub, broker: Mosquitto, listener: Listener) -> None:
    served = Served(hub, broker.port)
    listener.next(f"{SITE}/availability", lambda body: body == "online")
    assert all(listener.all(f"{SITE}/state/{name}") for name in hub.site.devices)
    served.close()


def test_what_is_no_more_disappears_and_home_assistants_birth_has_all_said_again(
    hub: Hub, broker: Mosquitto, listener: Listener
) -> None:
    gone = ["homeassistant/device/edgewright_home/device_old_lamp/config", f"{SITE}/state/old_lamp"]
    gone += ["homeassistant/light/edgewright_home/device_porch_light_light_light/config"]  # of another style
    other = "homeassistant/device/edgewright_cabin/device_old_lamp/config"
    for topic in [*gone, other]:
        listener.say(topic, "{}", retain=True)
    listener.settle()
    served = Served(hub, broker.port)
    for topic in gone:
        listener.next(topic, lambda body: body == "")
    lamp = "homeassistant/device/edgewright_home/device_kitchen_light/config"
    message = listener.next(lamp)
    assert message["components"]["light_light"]["command_topic"] == f"{SITE}/command/kitchen_light"
    assert len(listener.all(other)) == 1
    listener.say("homeassistant/status", "offline")
    listener.say("homeassistant/status", "online")
    assert listener.next(lamp) == message
    late = Listener(broker.port)
    assert late.next(lamp) == message and not late.all(gone[0])
    late.close()
    served.close()


def test_without_discovery_nothing_is_announced(hub: Hub, broker: Mosquitto, listener: Listener) -> None:
    old = "homeassistant/device/edgewright_home/box/config"
    listener.say(old, "{}", retain=True)
    listener.settle()
    served = Served(hub, broker.port, discovery="none")
    listener.next(old, lambda body: body == "")
    listener.say(f"{SITE}/ask", "what is it")
    listener.next(f"{SITE}/answer")
    served.close()
    assert not [one.topic for one in listener.heard if one.topic.startswith("homeassistant/") and one.topic != old]
