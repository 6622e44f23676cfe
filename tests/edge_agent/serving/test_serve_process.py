"""`edgewright serve` as a process, with a real engine: start, requests, deaths of the engine and its own, clean end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest

from devices.broker.journal import Journal
from devices.site.site import SITES_FOLDER, load_site
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edgewright import main
from export.bundle.writer import Parts, write_bundle
from export.convert.gguf_writer import convert
from finetune.recipe import STARTER_FOLDER
from tests.tiny_bundle import TINY_EXPORT

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
START_S = 60.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter, which knows the home without being tuned to it."""
    folder = tmp_path_factory.mktemp("served")
    template = load_template("chatml")
    digest = contract_of(load_site("home"), template).digest
    model = folder / "starter.gguf"
    convert(
        STARTER_FOLDER,
        None,
        model,
        template=template,
        name="starter",
        metadata={"contract": digest, "template": "chatml"},
    )
    export = TINY_EXPORT | {"name": "homebox", "contract": digest}
    write_bundle(Parts("homebox", "F16", model, SITES_FOLDER / "home.yaml", template, None, export), folder / "bundle")
    return folder / "bundle"


class Served:
    """A process that serves, and what it said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.lines = process, list[str]()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def wait_for(self, pattern: str) -> str:
        end_s = time.monotonic() + START_S
        while not (found := re.search(pattern, "".join(self.lines))):
            assert time.monotonic() < end_s and self.process.poll() is None, self.lines
            time.sleep(0.05)
        return found.group(1)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(START_S)
        self._reader.join()
        return code


@contextmanager
def served(bundle: Path, *words: str, **environment: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "edgewright", "serve", str(bundle), "--set", "http.port=0", *words]
    process = subprocess.Popen(
        [*command, "--set", "http.mcp=false"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | environment,
    )
    box = Served(process)
    try:
        yield box
    finally:
        if process.poll() is None:
            box.end(signal.SIGKILL)
        assert process.stderr
        process.stderr.close()


def url_of(box: Served) -> str:
    return box.wait_for(r'http: (http://127.0.0.1:\d+/)"')


def ask(url: str, text: str) -> str:
    body = {"model": "homebox:agent", "messages": [{"role": "user", "content": text}]}
    return str(
        httpx.post(f"{url}v1/chat/completions", json=body, timeout=60).json()["choices"][0]["message"]["content"]
    )


def test_it_answers_survives_its_engine_and_ends_cleanly(bundle: Path, tmp_path: Path) -> None:
    with served(bundle, "--journal", str(tmp_path / "journal.sqlite")) as box:
        url = url_of(box)
        box.wait_for("(these devices are simulated)")
        assert ask(url, "turn the kitchen light on") == "The kitchen light is on."
        (engine,) = psutil.Process(box.process.pid).children()
        engine.kill()
        assert httpx.get(f"{url}healthz").status_code in {200, 503}
        assert ask(url, "turn the kitchen light off") == "The kitchen light is off."
        box.wait_for("(it is started again)")
        assert httpx.get(f"{url}healthz").json() == {"status": "ok"}
        other = subprocess.run(
            [sys.executable, "-m", "edgewright", "serve", str(bundle), "--journal", str(tmp_path / "journal.sqlite")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert other.returncode == 3 and "another controller writes the journal" in other.stderr
        assert box.end() == 0
    assert "stopped" in box.lines[-1]
    assert all(re.match(r'time=\S+ level=\w+ msg=".*"$', line) for line in box.lines)


def test_what_a_dead_process_left_open_is_settled_at_the_next_start(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    number = journal.append("PROPOSED", {"device": "porch_light", "action": "on", "input": {}}, 100.0)
    journal.append("STARTED", {"effect": {"on": True}}, 100.0, number)
    journal.close()
    with served(bundle, "--journal", str(path)) as box:
        url = url_of(box)
        box.wait_for("(I was stopped in the middle of on porch_light)")
        events = httpx.get(f"{url}api/journal").json()["events"]
        assert [one["event"] for one in events] == ["PROPOSED", "STARTED", "UNKNOWN"]
        assert box.end(signal.SIGKILL) == -signal.SIGKILL
    with served(bundle, "--journal", str(path)) as box:
        assert len(httpx.get(f"{url_of(box)}api/journal").json()["events"]) == 3
        assert box.end(signal.SIGINT) == 0


def test_a_check_opens_nothing(bundle: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", str(bundle), "--check"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "box: homebox for home" and lines[1].startswith("http: http://127.0.0.1:8377/")
    assert main(["serve", str(tmp_path), "--check"]) == 2
    assert main(["serve", str(bundle), "--check", "--live"]) == 2
    assert main(["serve", str(bundle), "--check", "--site", "greenhouse"]) == 0
    assert "box: homebox for greenhouse, which is new to the model" in capfd.readouterr().out
    assert main(["serve"]) == 2
    assert "which box?" in capfd.readouterr().err
    assert main(["serve", "--new-token", str(tmp_path / "token")]) == 0
    assert (
        main(["serve", "--check", "--set", "http.host=0.0.0.0", "--set", f"http.token_file={tmp_path / 'token'}"]) == 0
    )
    assert "without TLS others can read along" in capfd.readouterr().out


def test_systemd_hears_of_it(bundle: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as pipe:
        pipe.bind(str(tmp_path / "notify"))
        pipe.settimeout(START_S)
        with served(bundle, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000") as box:
            heard = [pipe.recv(200).decode() for _ in range(3)]
            assert any(one.startswith("READY=1\nSTATUS=http: http://127.0.0.1:") for one in heard)
            assert "WATCHDOG=1" in heard
            assert box.end() == 0
        pipe.settimeout(2)
        while "STOPPING=1" not in heard:
            heard.append(pipe.recv(200).decode())


def test_a_door_that_cannot_open_leaves_the_others_open(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with served(bundle, "--set", f"wyoming.port={port}") as box:
            url = url_of(box)
            box.wait_for(f"(wyoming: .*{port})")
            assert httpx.get(f"{url}api/health").json()["status"] == "degraded"
            assert box.end() == 0
        alone = subprocess.run(
            [sys.executable, "-m", "edgewright", "serve", str(bundle), "--set", f"http.port={port}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert alone.returncode == 3
    assert alone.stderr.splitlines()[-1].startswith(f"error: port {port} of 127.0.0.1 is taken; hint: ")
