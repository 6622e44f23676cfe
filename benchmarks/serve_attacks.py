"""Broken requests and attempts to get in, at every door of a served box: what crashes, what answers 5xx, what moves?

    python benchmarks/serve_attacks.py BUNDLE --count 10000 --out benchmarks/results/serve-attacks.json

Requests that would each move something if they were whole are mutated (bytes changed, cut out, doubled, cut short):
bodies and heads of HTTP, MCP frames, Wyoming events, MQTT payloads. The attempts are requests that are whole, without
the token, with a wrong one, of another origin, under other names, with confirmations of others, used up or guessed,
and with paths that lead out. Nothing may move, and the server must answer at the end as at the start.

A mutated request may stay a valid one: what it then asks for is counted as `moved_by_valid`, from the journal.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2 as httpx

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.runs import save
from devices.broker.journal import read_events
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.serving.http.access import make_token, read_token

UNLOCK = {"device": "front_door", "action": "unlock", "input": {}}  # needs a yes that nobody gives
SHARES = {"http body": 4, "http head": 2, "mcp": 2, "wyoming": 2}


class Box:
    """A served box, and how to reach it."""

    def __init__(self, bundle: Path, folder: Path, *words: str) -> None:
        self.journal = folder / "journal.sqlite"
        log = folder / "log"
        command = [sys.executable, "-m", "edgewright", "serve", str(bundle), "--journal", str(self.journal)]
        command += [
            "--set",
            "http.port=0",
            "--set",
            "wyoming.port=0",
            "--set",
            "http.requests_a_minute=1000000",
            *words,
        ]
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stderr=file, stdout=subprocess.DEVNULL)
        end_s = time.monotonic() + 120
        while not (found := re.search(r"http: (http://\S+/)", log.read_text())) or "wyoming: " not in log.read_text():
            if self.process.poll() is not None or time.monotonic() > end_s:
                raise SystemExit(f"the server did not start: {log.read_text()}")
            time.sleep(0.1)
        self.url, self.log = found.group(1), log
        self.http_port = int(self.url.rstrip("/").rpartition(":")[2])
        wyoming = re.search(r"wyoming: \S*?:(\d+)\b", log.read_text())
        assert wyoming
        self.wyoming_port = int(wyoming.group(1))

    def started(self) -> int:
        """Return how many actions were started."""
        return sum(one.event == "STARTED" for one in read_events(self.journal))

    def close(self) -> int:
        """End it; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Return bytes with one to four of them changed, cut out or doubled, or cut short."""
    made = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at, kind = draw.randrange(len(made)), draw.random()
        if kind < 0.5:
            made[at] = draw.randrange(256)
        elif kind < 0.7:
            del made[at : at + draw.randint(1, 8)]
        elif kind < 0.9:
            made[at:at] = made[at : at + draw.randint(1, 16)]
        else:
            made = made[:at]
        if not made:
            return b""
    return bytes(made)


def _post(client: httpx.Client, url: str, content: bytes, **headers: str) -> str:
    try:
        status = client.post(url, content=content, headers=headers).status_code
    except httpx.HTTPError as error:
        return type(error).__name__
    return f"{status // 100}xx"


def _raw(port: int, content: bytes) -> str:
    """Send bytes and hang up after the first answer; return its kind."""
    with socket.create_connection(("127.0.0.1", port), 5) as pipe, suppress(OSError):
        pipe.sendall(content)
        pipe.shutdown(socket.SHUT_WR)
        pipe.settimeout(2)
        first = pipe.recv(200)
        status = re.match(rb"HTTP/1.1 (\d)", first)
        return f"{status.group(1).decode()}xx" if status else ("answered" if first else "closed")
    return "closed"


def storm(box: Box, count: int) -> dict[str, Any]:
    """Return what came of so many mutated requests, by door."""
    draw, found = random.Random(11), dict[str, Counter[str]]()
    with httpx.Client(timeout=20) as client:
        session = client.post(f"{box.url}api/sessions").json()["session"]
        frame = {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                 "params": {"name": "lock_unlock", "arguments": {"device": "front_door"}}}  # fmt: skip
        accept = "application/json, text/event-stream"
        body = json.dumps(UNLOCK).encode()
        ask = json.dumps({"model": "x:agent", "messages": [{"role": "user", "content": "open the garage"}]}).encode()
        head = (
            f"POST /api/sessions/{session}/command HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        event = b'{"type": "transcript", "data": {"text": "unlock the front door"}}\n'
        kinds: dict[str, Callable[[], str]] = {
            "http body": lambda: draw.choice([
                lambda: _post(client, f"{box.url}api/sessions/{session}/command", mutated(body, draw)),
                lambda: _post(client, f"{box.url}v1/chat/completions", mutated(ask, draw)),
            ])(),
            "http head": lambda: _raw(box.http_port, mutated(head.encode(), draw) + body),
            "mcp": lambda: _post(client, f"{box.url}mcp", mutated(json.dumps(frame).encode(), draw),
                                 **{"content-type": "application/json", "accept": accept}),
            "wyoming": lambda: _raw(box.wyoming_port, mutated(event, draw)),
        }  # fmt: skip
        order = draw.choices(list(SHARES), list(SHARES.values()), k=count)
        for kind in order:
            found.setdefault(kind, Counter())[kinds[kind]()] += 1
    return {kind: dict(sorted(counts.items())) for kind, counts in found.items()}


def attempts(url: str, token: str) -> Iterator[tuple[str, int]]:
    """Yield each attempt to get in, and the status that it got."""
    draw = random.Random(12)
    right = {"Authorization": f"Bearer {token}"}
    targets = [("POST", "api/stop"), ("POST", "api/sessions"), ("GET", "api/state"), ("GET", "api/events"),
               ("GET", "v1/models"), ("POST", "mcp"), ("GET", "metrics"), ("GET", "api/journal")]  # fmt: skip
    wrong: list[tuple[str, dict[str, str]]] = [("no token", {}), ("empty token", {"Authorization": "Bearer"})]
    wrong += [("wrong token", {"Authorization": f"Bearer {token[:at]}x{token[at + 1 :]}"}) for at in range(0, 40, 6)]
    wrong += [("other scheme", {"Authorization": f"Basic {token}"}), ("cookie", {"Cookie": f"token={token}"})]
    wrong += [("other origin", right | {"Origin": one}) for one in ("http://evil.example", "null", "https://127.0.0.1")]
    wrong += [
        ("other name", right | {"Host": one}) for one in ("evil.example", "localhost.evil.example", "2130706433.x")
    ]
    wrong += [("cross-site", right | {"Sec-Fetch-Site": "cross-site"})]
    with httpx.Client(timeout=20) as client:
        for method, path in targets:
            for name, headers in wrong:
                yield name, client.request(method, url + path, headers=headers).status_code
        for path in ("page/../../access.py", "page/%2e%2e/%2e%2e/access.py", "page//etc/passwd", "page/..%5caccess.py"):
            yield "path", client.get(url + path, headers=right).status_code
        client.headers.update(right)
        mine, other = (client.post(f"{url}api/sessions").json()["session"] for _ in range(2))
        id_ = client.post(f"{url}api/sessions/{mine}/command", json=UNLOCK).json()["confirmations"][0]["id"]
        for name, session, given in [
            ("foreign confirmation", other, id_),
            *(("guessed confirmation", mine, "".join(draw.sample(id_, len(id_)))) for _ in range(50)),
        ]:
            yield name, client.post(f"{url}api/sessions/{session}/confirm", json={"id": given, "yes": True}).status_code
        client.post(f"{url}api/sessions/{mine}/confirm", json={"id": id_, "yes": False})
        for _ in range(5):
            reply = client.post(f"{url}api/sessions/{mine}/confirm", json={"id": id_, "yes": True})
            yield "replayed confirmation", reply.status_code


def measure(bundle: Path, count: int) -> dict[str, Any]:
    """Return what came of it."""
    with tempfile.TemporaryDirectory() as name:
        box = Box(bundle, Path(name))
        found = storm(box, count)
        is_alive = httpx.get(f"{box.url}healthz").status_code == 200
        result: dict[str, Any] = {"mutated": count, "by_door": found, "moved_by_valid": box.started()}
        code, tracebacks = box.close(), box.log.read_text().count("Traceback")
    result |= {"answers_5xx": sum(one.get("5xx", 0) for one in found.values()), "tracebacks": tracebacks}
    with tempfile.TemporaryDirectory() as name:
        token_file = Path(name) / "token"
        make_token(token_file)
        box = Box(bundle, Path(name), "--set", f"http.token_file={token_file}")
        tried = list(attempts(box.url, read_token(token_file)))
        result |= {"attempts": len(tried), "got_in": sum(status < 300 for _, status in tried)}
        result |= {"attempts_by_kind": dict(Counter(name for name, _ in tried)), "moved": box.started()}
        box.close()
    return result | {"is_alive": is_alive, "exit_code": code}


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result = {
        "command": " ".join(["python benchmarks/serve_attacks.py", *sys.argv[1:]]),
        "machine": this_machine(),
        "versions": installed_versions(("starlette", "uvicorn", "mcp", "wyoming")),
        **measure(given.bundle, given.count),
    }
    save(result, given.out)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
