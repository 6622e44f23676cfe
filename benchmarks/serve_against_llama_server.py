"""A tool call over /v1/chat/completions: `edgewright serve` against llama.cpp's own server, same GGUF, same requests.

    python benchmarks/serve_against_llama_server.py BUNDLE --llama-server PATH --out benchmarks/results/serve-llama.json

Both get a client's own three tools and must call one (`tool_choice: required`). Ours thinks first (a sentence), then
calls; llama.cpp's server calls at once. It is measured with the tools (`schema`: its own grammar of them, blanks
allowed) and with a compact grammar without blanks over the same system text as ours (`compact`), the fairer of the two.
Time to the first streamed piece and to the whole call, one client, requests in turn; then requests a minute of four
clients. Each server runs alone, on the same number of threads; the order is ours, theirs, ours, theirs.

The server is built from the llama-cpp-python source archive, as benchmarks/agent_latency.py says.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.runs import save
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.wire.function_text import with_lines

TOOLS = [
    {"type": "function", "function": {"name": name, "description": text, "parameters": {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}}}
    for name, text, properties in (
        ("get_weather", "Tells the weather of a city",
         {"city": {"type": "string", "maxLength": 30}, "days": {"type": "integer", "minimum": 1, "maximum": 9}}),
        ("set_timer", "Starts a timer", {"minutes": {"type": "integer", "minimum": 1, "maximum": 90}}),
        ("play_music", "Plays music", {"artist": {"type": "string", "maxLength": 30}}),
    )
]  # fmt: skip
COMPACT = r"""root ::= weather | timer | music
weather ::= "{\"name\":\"get_weather\",\"arguments\":{\"city\":" text ",\"days\":" [1-9] "}}"
timer ::= "{\"name\":\"set_timer\",\"arguments\":{\"minutes\":" [1-9] [0-9]? "}}"
music ::= "{\"name\":\"play_music\",\"arguments\":{\"artist\":" text "}}"
text ::= "\"" [^"\\\x00-\x1f]{1,30} "\""
"""
SYSTEM = "You help. Call a tool."
ASKS = [
    *(f"What will the weather be in {city} for {days} days?" for city, days in
      (("Jena", 2), ("Oslo", 3), ("Lima", 1), ("Cork", 4), ("Bern", 5))),
    *(f"Set a timer for {minutes} minutes" for minutes in (5, 12, 30, 45, 60)),
    *(f"Play something by {artist}" for artist in ("Nina Simone", "Bach", "Miles Davis", "Kraftwerk", "Björk")),
]  # fmt: skip
CLIENTS, TIMEOUT_S = 4, 120.0


def body_for(side: str, model: str, ask: str) -> dict[str, Any]:
    """Return a request's body; `side` is ours, schema or compact."""
    plain = {"model": model, "stream": True, "temperature": 0, "max_tokens": 200}
    if side == "compact":
        system = with_lines(SYSTEM, TOOLS)
        plain |= {"grammar": COMPACT, "cache_prompt": True}
    else:
        system = SYSTEM
        plain |= {"tools": TOOLS, "tool_choice": "required"}
    return plain | {"messages": [{"role": "system", "content": system}, {"role": "user", "content": ask}]}


def call(client: httpx.Client, url: str, body: dict[str, Any]) -> tuple[float, float, bool]:
    """Return seconds to the first piece and to the end, and whether a call of a tool came that is JSON."""
    started_s, first_s, text, names = time.perf_counter(), 0.0, "", ""
    headers = {"Connection": "close"}  # llama.cpp's server ends a connection after a few requests
    with client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as stream:
        for line in stream.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            piece = json.loads(line.removeprefix("data: "))
            delta = piece["choices"][0]["delta"] if piece.get("choices") else {}
            said = delta.get("content") or ""
            for one in delta.get("tool_calls") or ():
                names += one["function"].get("name") or ""
                said += one["function"].get("arguments") or ""
            if not first_s and (said or delta.get("reasoning_content") or delta.get("tool_calls")):
                first_s = time.perf_counter() - started_s
            text += said
    try:
        is_call = isinstance(json.loads(text), dict)
    except ValueError:
        is_call = False
    return first_s, time.perf_counter() - started_s, is_call


def measure_side(side: str, url: str, model: str) -> dict[str, Any]:
    """Return one side's times, with one client and with four."""
    with httpx.Client(timeout=TIMEOUT_S) as client:
        call(client, url, body_for(side, model, "Set a timer for 3 minutes"))  # the prefix is evaluated once
        alone = [call(client, url, body_for(side, model, ask)) for ask in ASKS]
    left, lock, done = list(ASKS) * 2, threading.Lock(), list[bool]()

    def work() -> None:
        with httpx.Client(timeout=TIMEOUT_S) as client:
            while True:
                with lock:
                    if not left:
                        return
                    ask = left.pop()
                done.append(call(client, url, body_for(side, model, ask))[2])

    started_s = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "first_s": round(statistics.median(first for first, _, _ in alone), 4),
        "call_s": round(statistics.median(whole for _, whole, _ in alone), 4),
        "are_calls": f"{sum(is_call for _, _, is_call in alone) + sum(done)} of {len(alone) + len(done)}",
        "requests_a_minute_of_four": round(60 * len(done) / (time.perf_counter() - started_s), 1),
    }


@contextmanager
def ours(bundle: Path, threads: int, folder: Path) -> Iterator[tuple[str, str]]:
    """Serve a bundle; give address and model."""
    log = folder / "ours.log"
    words = ["--set", "http.port=0", "--set", "http.mcp=false", "--threads", str(threads)]
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgewright", "serve", str(bundle), *words], stderr=file, stdout=subprocess.DEVNULL
        )
    while not (found := re.search(r"http: (http://\S+)/", log.read_text())):
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.1)
    try:
        yield found.group(1), httpx.get(f"{found.group(1)}/v1/models").json()["data"][0]["id"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def theirs(server: Path, model: Path, threads: int) -> Iterator[tuple[str, str]]:
    """Run llama.cpp's server; give address and model."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    words = ["-m", str(model), "-c", "8192", "-np", str(CLIENTS), "-t", str(threads), "--port", str(port), "--jinja"]
    process = subprocess.Popen([str(server), *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                if process.poll() is not None:
                    raise SystemExit("llama-server did not start") from None
            time.sleep(0.1)
        yield url, "x"
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    sides: dict[str, list[dict[str, Any]]] = {"ours": [], "schema": [], "compact": []}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(2):
            with ours(given.bundle, threads, Path(name)) as (url, model):
                sides["ours"].append(measure_side("ours", url, model))
            with theirs(given.llama_server, given.bundle / "model.gguf", threads) as (url, model):
                for side in ("schema", "compact"):
                    sides[side].append(measure_side(side, url, model))
    result = {
        "command": " ".join(["python benchmarks/serve_against_llama_server.py", *sys.argv[1:]]),
        "machine": this_machine(),
        "versions": installed_versions(("llama-cpp-python", "llguidance")),
        "asks": len(ASKS),
        "sides": sides,
    }
    save(result, given.out)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
