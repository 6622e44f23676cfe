"""Many clients at all doors of a served box while its engine is killed and connections are cut; what is lost, or twice?

    python benchmarks/serve_load.py BUNDLE --minutes 10 --out benchmarks/results/serve-load.json

Fifty clients: OpenAI's API, the box's own API with listeners to its news, MCP, Wyoming, and MQTT where mosquitto is
installed. Requests in words go to the engine, commands to the broker; one HTTP request in twenty is cut off by its
client. The engine's process is killed every fifteen seconds. Counted are requests that got neither an answer nor an
error, commands in the journal against commands sent, and the server's memory from a fifth of the way to its end.

Overhead is measured before that, with nobody else: a command and a request in words over HTTP on the loopback address,
against the same in the server's own words for how long they took (`seconds` of the answer, the engine included).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.runs import save
from devices.broker.journal import read_events, verify_events
from edge_agent.engine.machine import installed_versions, this_machine

CLIENTS = {"openai": 16, "api": 12, "listener": 4, "mcp": 6, "wyoming": 6, "mqtt": 6}
ASKS = ("turn the kitchen light on", "turn the kitchen light off", "is the front door locked?", "close the blinds",
        "set the thermostat to 21 degrees", "unlock the front door", "how warm is it in the hall?")  # fmt: skip
KILL_EVERY_S, CUT_SHARE, TIMEOUT_S, PAUSE_S = 15.0, 0.05, 90.0, 1.0
OVERHEAD_ROUNDS = 40


class Load:
    """What the clients share: addresses, the end, and what happened."""

    def __init__(self, url: str, name: str, wyoming_port: int, mqtt_port: int, until_s: float) -> None:
        self.url, self.wyoming_port, self.mqtt_port, self.until_s = url, wyoming_port, mqtt_port, until_s
        self.counts: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {}
        self.draw = random.Random(3)
        self.name = name
        self.commands = 0  # sent straight to the broker

    async def repeat(self, door: str, once: Callable[[], Awaitable[str]]) -> None:
        """Do one request after the other until the end, each with a pause after it; `once` says what came of it."""
        while time.monotonic() < self.until_s:
            started_s = time.monotonic()
            try:
                result = await asyncio.wait_for(once(), TIMEOUT_S)
            except TimeoutError:
                result = "LOST"
            except (OSError, httpx.HTTPError, EOFError) as error:
                result = f"error: {type(error).__name__}"
            self.counts[f"{door}: {result}"] += 1
            self.seconds.setdefault(door, []).append(time.monotonic() - started_s)
            await asyncio.sleep(self.draw.random() * 2 * PAUSE_S)

    def command(self) -> dict[str, Any]:
        """Return a command that moves a lamp, and count it."""
        self.commands += 1
        return {"device": "kitchen_light", "action": "brightness", "input": {"brightness": self.draw.randint(1, 100)}}


async def _openai(load: Load, number: int) -> None:
    async with httpx.AsyncClient(timeout=TIMEOUT_S, headers={"User-Agent": f"load {number}"}) as client:

        async def once() -> str:
            model = load.draw.choice([f"{load.name}:agent", load.name])
            body = {"model": model, "messages": [{"role": "user", "content": load.draw.choice(ASKS)}]}
            if load.draw.random() < CUT_SHARE:
                with suppress(httpx.TimeoutException):
                    await client.post(f"{load.url}v1/chat/completions", json=body, timeout=load.draw.random())
                return "cut by its client"
            reply = await client.post(f"{load.url}v1/chat/completions", json=body)
            return "answered" if reply.status_code == 200 else f"status {reply.status_code}"

        await load.repeat("openai", once)


async def _api(load: Load, number: int) -> None:
    async with httpx.AsyncClient(timeout=TIMEOUT_S, headers={"User-Agent": f"api {number}"}) as client:
        session = (await client.post(f"{load.url}api/sessions")).json()["session"]

        async def once() -> str:
            reply = await client.post(f"{load.url}api/sessions/{session}/command", json=load.command())
            return (
                str(reply.json()["actions"][0]["status"]) if reply.status_code == 200 else f"status {reply.status_code}"
            )

        await load.repeat("api", once)


async def _listener(load: Load, number: int) -> None:
    del number
    while time.monotonic() < load.until_s:
        async with (
            httpx.AsyncClient(timeout=httpx.Timeout(10, read=60)) as client,
            client.stream("GET", f"{load.url}api/events") as news,
        ):
            cut_s = time.monotonic() + load.draw.uniform(5, 30)
            with suppress(httpx.ReadTimeout):
                async for line in news.aiter_lines():
                    load.counts["listener: news"] += line.startswith("data:")
                    if time.monotonic() > cut_s:
                        break


async def _mcp(load: Load, number: int) -> None:
    from mcp import Client

    del number
    async with Client(f"{load.url}mcp") as client:

        async def once() -> str:
            command = load.command()
            arguments = {"device": command["device"], **command["input"]}
            result = await client.call_tool("light_brightness", arguments)
            return "error" if result.is_error else "done"

        await load.repeat("mcp", once)


async def _wyoming(load: Load, number: int) -> None:
    from wyoming.asr import Transcript
    from wyoming.client import AsyncTcpClient

    del number

    async def once() -> str:
        async with AsyncTcpClient("127.0.0.1", load.wyoming_port) as client:
            await client.write_event(Transcript(text=load.draw.choice(ASKS)).event())
            event = await client.read_event()
            return event.type if event else "LOST"

    await load.repeat("wyoming", once)


async def _mqtt(load: Load, number: int) -> None:
    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    loop, answers = asyncio.get_running_loop(), asyncio.Queue[bytes]()
    client = Client(CallbackAPIVersion.VERSION2, f"load{number}", protocol=MQTTProtocolVersion.MQTTv5)

    def heard(_: Any, __: Any, message: MQTTMessage) -> None:
        loop.call_soon_threadsafe(answers.put_nowait, bytes(message.payload))

    client.on_message = heard
    client.connect("127.0.0.1", load.mqtt_port)
    client.loop_start()
    client.subscribe(f"load/{number}", qos=1)
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic = f"load/{number}"

    async def once() -> str:
        properties.CorrelationData = str(load.draw.random()).encode()
        client.publish("edgewright/home/ask", load.draw.choice(ASKS), qos=1, properties=properties)
        return "answered" if "answer" in json.loads(await answers.get()) else "error"

    try:
        await load.repeat("mqtt", once)
    finally:
        client.disconnect()
        client.loop_stop()


WORK = {"openai": _openai, "api": _api, "listener": _listener, "mcp": _mcp, "wyoming": _wyoming, "mqtt": _mqtt}


async def _run(load: Load, process: subprocess.Popen[str], doors: dict[str, int]) -> list[int]:
    """Have all clients work, kill the engine now and then; return the server's memory every second, in bytes."""
    server, memory = psutil.Process(process.pid), list[int]()
    tasks = [asyncio.create_task(WORK[door](load, number)) for door, count in doors.items() for number in range(count)]
    next_kill_s = time.monotonic() + KILL_EVERY_S
    while time.monotonic() < load.until_s:
        await asyncio.sleep(1)
        memory.append(server.memory_info().rss)
        if time.monotonic() > next_kill_s:
            next_kill_s += KILL_EVERY_S
            with suppress(psutil.NoSuchProcess, IndexError):
                next(one for one in server.children() if "worker" in " ".join(one.cmdline())).kill()
                load.counts["engine killed"] += 1
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, BaseException):
            load.counts[f"client ended by {type(result).__name__}: {result}"[:160]] += 1
    return memory


def overhead(url: str) -> dict[str, float]:
    """Return what HTTP adds to a command and to a request in words, in ms, medians with nobody else at the doors."""
    found: dict[str, list[float]] = {"command_ms": [], "ask_ms": []}
    with httpx.Client(timeout=TIMEOUT_S) as client:
        session = f"{url}api/sessions/{client.post(f'{url}api/sessions').json()['session']}"
        for number in range(OVERHEAD_ROUNDS):
            for kind, path, body in (
                ("command_ms", "command", {"device": "kitchen_light", "action": "brightness",
                                           "input": {"brightness": number + 1}}),
                ("ask_ms", "ask", {"text": ASKS[number % 3]}),
            ):  # fmt: skip
                started_s = time.perf_counter()
                inside_s = client.post(f"{session}/{path}", json=body).json()["seconds"]
                found[kind].append(1000 * (time.perf_counter() - started_s - inside_s))
    return {kind: round(statistics.median(values), 2) for kind, values in found.items()}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _start(bundle: Path, folder: Path, mqtt_port: int) -> tuple[subprocess.Popen[str], str, int]:
    words = ["--set", "http.port=0", "--set", "wyoming.port=0", "--set", "http.requests_a_minute=100000"]
    words += ["--set", f"mqtt.port={mqtt_port}", "--set", "mqtt.host=127.0.0.1"] if mqtt_port else []
    command = [sys.executable, "-m", "edgewright", "serve", str(bundle), "--journal", str(folder / "journal.sqlite")]
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen([*command, *words], stderr=file, stdout=subprocess.DEVNULL, text=True)
    end_s = time.monotonic() + 120
    while True:
        text = log.read_text()
        url, wyoming = re.search(r"http: (http://\S+/)", text), re.search(r"wyoming: \S*?:(\d+)\b", text)
        if url and wyoming and (not mqtt_port or "mqtt: " in text):
            return process, url.group(1), int(wyoming.group(1))
        if process.poll() is not None or time.monotonic() > end_s:
            raise SystemExit(f"the server did not start: {text}")
        time.sleep(0.1)


def measure(bundle: Path, minutes: float) -> dict[str, Any]:
    """Return what came of it."""
    mosquitto = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    doors = {door: count for door, count in CLIENTS.items() if door != "mqtt" or mosquitto}
    with tempfile.TemporaryDirectory() as name:
        folder, mqtt_port = Path(name), _free_port() if mosquitto else 0
        broker = subprocess.Popen([mosquitto, "-p", str(mqtt_port)], stderr=subprocess.DEVNULL) if mosquitto else None
        process, url, wyoming_port = _start(bundle, folder, mqtt_port)
        try:
            model = httpx.get(f"{url}v1/models").json()["data"][0]["id"]
            alone = overhead(url)
            load = Load(url, model, wyoming_port, mqtt_port, time.monotonic() + 60 * minutes)
            before = _proposals(folder)
            memory = asyncio.run(_run(load, process, doors))
            proposed = _proposals(folder) - before
            health = httpx.get(f"{url}api/health", timeout=30).json()
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(30)
            if broker:
                broker.terminate()
        verify_events(read_events(folder / "journal.sqlite"))
    fifth = len(memory) // 5
    first, last = statistics.median(memory[fifth : 2 * fifth]), statistics.median(memory[-fifth:])
    return {
        "clients": doors,
        "minutes": minutes,
        "overhead": alone,
        "counts": dict(sorted(load.counts.items())),
        "lost": sum(count for what, count in load.counts.items() if "LOST" in what),
        "median_s": {door: round(statistics.median(values), 3) for door, values in load.seconds.items()},
        "commands_sent": load.commands,
        "brightness_commands_in_the_journal": proposed,
        "memory_mb": {
            "from_a_fifth": round(first / 1e6, 1),
            "end": round(last / 1e6, 1),
            "ratio": round(last / first, 4),
        },
        "health": health["status"],
        "exit_code": code,
    }


def _proposals(folder: Path) -> int:
    return sum(
        one.event == "PROPOSED" and one.body.get("action") == "brightness"
        for one in read_events(folder / "journal.sqlite")
    )


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result = {
        "command": " ".join(["python benchmarks/serve_load.py", *sys.argv[1:]]),
        "machine": this_machine(),
        "versions": installed_versions(("starlette", "uvicorn", "mcp", "wyoming", "paho-mqtt", "llama-cpp-python")),
        **measure(given.bundle, given.minutes),
    }
    save(result, given.out)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
