"""From a request to a tool call carried out: ours, llama-cpp-python and llama.cpp's server, on one machine and model.

    python -m benchmarks.agent_latency --model runs/demo/gguf/model-Q4_K_M.gguf --llama-server PATH
    python -m benchmarks.agent_latency --shape 1b --vocabularies VOCABULARIES --llama-server PATH

All sides get the same GGUF file, the same prompts (the home's system text, its state, a request) and the same schema:
one call of one of the site's tools; greedy. Thoughts are left out, since the others' schemas cannot have any. Each call
is parsed, checked by the broker and carried out in a simulated home. --shape makes random weights in the shape of Llama
3.2 1B or 3B as Q4_K_M: their values are nonsense, the schema makes them calls all the same.

The server is built from the llama-cpp-python source archive, with the flags that scripts/setup.py uses:
cmake -S vendor/llama.cpp -B build, then cmake --build build --target llama-server.

`first` is from the start of the process to the first executed call; ours has its primed state from an earlier start, as
a box has it, and is measured without too. `later` are the calls after it. `bound` is what llama.cpp itself takes: the
steps of each call times a step's measured time, and the tokens evaluated beside them at a prefill's.
"""

# ruff: noqa: E402  # the engine's process starts before the rest is imported
from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from edge_agent.engine.process import started_early

EARLY = started_early()  # as `edgewright run` does it, before it imports the rest
if __name__ == "__main__" and "ours" in sys.argv:
    EARLY.__enter__()
from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.site import load_site
from devices.site.tools import Tool, ToolCall, commands_of
from edge_agent.agent.simulation import Simulation
from edge_agent.engine.engine import Limits, Request, peak_resident_bytes
from edge_agent.engine.machine import installed_versions, this_machine
from edge_agent.grammar.enforced_schema import enforced
from edge_agent.grammar.grammar import Grammar
from edge_agent.grammar.reply_grammar import NO_BLANKS
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.messages import Message, user_message

CONTEXT_TOKENS = 2048
REPLY_TOKENS = 120
ASKS = (
    "turn the kitchen light on",
    "set the bedroom lamp to 40 percent",
    "set the thermostat to 21 degrees",
    "close the living room blinds",
    "lock the front door",
    "set the bathroom fan to 2",
    "water the garden for 5 minutes",
    "turn the porch light off",
    "run the well pump for 30 seconds",
    "turn off the workshop outlet",
    "open the blinds to 70",
    "set the kitchen light to 15 percent",
)


def call_schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """Return the schema of one call of any of some tools."""
    return {"anyOf": [
        {"type": "object", "properties": {"name": {"const": tool.name}, "arguments": tool.json_schema()},
         "required": ["name", "arguments"], "additionalProperties": False}
        for tool in tools
    ]}  # fmt: skip


def call_grammar(tools: Sequence[Tool]) -> Grammar:
    """Return the same for our engine."""
    return Grammar(f"start: %json {json.dumps(enforced(call_schema(tools), 'call') | {'x-guidance': NO_BLANKS})}\n")


class Scene:
    """The home, its prompts, and a broker that carries calls out."""

    def __init__(self, template: str) -> None:
        self.site = load_site("home")
        self.simulation = Simulation(self.site, load_template(template))
        self.world = World(self.site)
        self.agent = self.simulation.agent(self.world, confirm=lambda effect: True)
        self.tools = list(self.simulation.contract.tools)

    @property
    def schema(self) -> dict[str, Any]:
        """One call of any tool."""
        return call_schema(self.tools)

    @property
    def grammar(self) -> Grammar:
        """The same for our engine."""
        return call_grammar(self.tools)

    def messages(self, ask: str) -> list[Message]:
        """The conversation up to a reply."""
        system = Message("system", self.simulation.contract.system_text)
        return [system, user_message(ask, self.world.snapshot(), self.world.clock)]

    def prompt(self, ask: str) -> str:
        """The same as text."""
        return self.simulation.template.render(self.messages(ask), add_generation_prompt=True)

    def execute(self, text: str) -> str:
        """Carry out a call; return what came of it, or why it is none."""
        try:
            plain = json.loads(text)
        except ValueError:
            return "not JSON"
        command = commands_of(ToolCall(plain["name"], plain["arguments"]), self.tools)
        return command if isinstance(command, str) else self.agent.broker.execute(command).status


def ours(model: Path, template: str, cache: str) -> Iterator[dict[str, Any]]:
    """Calls by our engine, in a process of its own as on a box."""
    from edge_agent.engine.process import EngineProcess, EngineSettings

    settings = EngineSettings(model, cache=Path(cache), identity=str(model), context_tokens=CONTEXT_TOKENS)
    with EngineProcess(settings) as engine:
        scene = Scene(template)
        grammar = scene.grammar
        engine.prime(scene.agent.prefix)
        for ask in ASKS:
            started_s = time.perf_counter()
            (reply,) = engine.generate([Request(scene.prompt(ask), grammar, Limits(REPLY_TOKENS))])
            status = scene.execute(reply.text)
            yield {
                "s": time.perf_counter() - started_s,
                "status": status,
                "tokens": len(reply.token_ids),
                "steps": reply.model_steps,
                "forced": reply.forced_tokens,
                "prompt_tokens": reply.prompt_tokens - reply.reused_tokens,
                "memory_bytes": engine.memory_bytes() + peak_resident_bytes(),
            }


def llama_cpp_python(model: Path, template: str, cache: str) -> Iterator[dict[str, Any]]:
    """Calls by llama-cpp-python's chat completion."""
    del cache
    import llama_cpp

    llama = llama_cpp.Llama(str(model), n_ctx=CONTEXT_TOKENS, verbose=False, n_threads=threads_for(model))
    scene = Scene(template)
    shape = {"type": "json_object", "schema": scene.schema}
    for ask in ASKS:
        started_s = time.perf_counter()
        messages = [{"role": one.role, "content": one.text} for one in scene.messages(ask)]
        reply = llama.create_chat_completion(messages, response_format=shape, temperature=0, max_tokens=REPLY_TOKENS)
        status = scene.execute(reply["choices"][0]["message"]["content"])
        usage = reply["usage"]
        yield {"s": time.perf_counter() - started_s, "status": status, "tokens": usage["completion_tokens"],
               "memory_bytes": peak_resident_bytes()}  # fmt: skip


def threads_for(model: Path) -> int:
    """Return how many threads the others get: what ours takes for a model of that size."""
    return 1 if model.stat().st_size < 50e6 else os.cpu_count() or 1


def server(address: str, template: str) -> Iterator[dict[str, Any]]:
    """Calls by llama.cpp's server, which caches what it evaluated of the last prompt."""
    scene = Scene(template)
    for ask in ASKS:
        started_s = time.perf_counter()
        asked = {"prompt": scene.prompt(ask), "json_schema": scene.schema, "n_predict": REPLY_TOKENS}
        plain = post(address, "/completion", asked | {"temperature": 0, "cache_prompt": True})
        status = scene.execute(plain["content"])
        yield {"s": time.perf_counter() - started_s, "status": status, "tokens": plain["tokens_predicted"],
               "prompt_tokens": plain["timings"]["prompt_n"]}  # fmt: skip


def post(address: str, path: str, body: Any) -> Any:
    """Ask the server."""
    connection = http.client.HTTPConnection(address, timeout=600)
    connection.request("POST" if body else "GET", path, json.dumps(body) if body else None,
                       {"Content-Type": "application/json"})  # fmt: skip
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise ConnectionError(f"{path}: {answer.status} {text[:200]!r}")
    return json.loads(text)


SIDES = {"ours": ours, "llama-cpp-python": llama_cpp_python}


def run_side(side: str, model: Path, template: str, cache: str) -> list[dict[str, Any]]:
    """Run one side in a process; the first call is timed from the start of that process."""
    command = [sys.executable, "-m", "benchmarks.agent_latency", "--side", side, "--model", str(model),
               "--template", template, "--cache", cache]  # fmt: skip
    started_s = time.perf_counter()
    calls: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout
        for line in process.stdout:
            calls.append(json.loads(line))
            if len(calls) == 1:
                calls[0]["first_s"] = time.perf_counter() - started_s
    if process.returncode or not calls:
        raise UsageError(f"{side} failed with exit code {process.returncode}")
    return calls


def run_server(binary: Path, model: Path, template: str, folder: Path) -> list[dict[str, Any]]:
    """Start the server, ask it, stop it; its first call is timed from its start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(binary), "-m", str(model), "-c", str(CONTEXT_TOKENS), "--port", str(port), "--host", "127.0.0.1",
               "-t", str(threads_for(model)), "-np", "1", "--no-webui"]  # fmt: skip
    address, started_s = f"127.0.0.1:{port}", time.perf_counter()
    log = (folder / "server.log").open("wb")
    with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            while True:
                try:
                    post(address, "/health", None)
                    break
                except (ConnectionError, OSError):
                    if process.poll() is not None:
                        raise UsageError(f"{binary} ended: {(folder / 'server.log').read_bytes()[-500:]!r}") from None
                    time.sleep(0.02)
            calls = []
            for call in server(address, template):
                calls.append(call)
                calls[0].setdefault("first_s", time.perf_counter() - started_s)
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            memory = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
            calls[-1]["memory_bytes"] = int(memory.split()[1]) * 1024
        finally:
            process.terminate()
    return calls


def summary(calls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one run's figures."""
    later = [call["s"] for call in calls[1:]]
    figures: dict[str, Any] = {
        "first_s": round(calls[0]["first_s"], 3),
        "later_median_s": round(statistics.median(later), 4),
        "later_p95_s": round(statistics.quantiles(later, n=20, method="inclusive")[-1], 4),
        "executed": sum(call["status"] in {"done", "refused", "failed", "unknown"} for call in calls),
        "calls": len(calls),
        "memory_mb": round(max(call.get("memory_bytes", 0) for call in calls) / 1e6),
    }
    for key in ("tokens", "steps", "forced", "prompt_tokens"):
        if all(key in call for call in calls[1:]):
            figures[f"{key}_mean"] = round(statistics.mean(call[key] for call in calls[1:]), 1)
    return figures


def bound(model: Path, calls: Sequence[dict[str, Any]], template: str) -> dict[str, Any]:
    """Return what llama.cpp alone takes for our calls, and how much of a call is our own."""
    import llama_cpp

    from edge_agent.engine import llama_cpp_engine as llama_engine

    spent = [0.0]
    real = llama_cpp.llama_decode

    def timed(*given: Any) -> int:
        started_s = time.perf_counter()
        code = real(*given)
        spent[0] += time.perf_counter() - started_s
        return int(code)

    with llama_engine.LlamaEngine(model, context_tokens=CONTEXT_TOKENS) as engine:
        scene = Scene(template)
        engine.prime(scene.agent.prefix)
        home = engine._home
        tokens = engine._tokenize(scene.prompt(ASKS[0]))
        times = []
        for _ in range(8):
            engine._forget(home, 0)
            started_s = time.perf_counter()
            engine._evaluate([(home, tokens[:256], [])])
            times.append((time.perf_counter() - started_s) / len(tokens[:256]))
        prefill_s = statistics.median(times)
        times = []
        for token in tokens[:24]:
            started_s = time.perf_counter()
            engine._evaluate([(home, [token], [0])])
            times.append(time.perf_counter() - started_s)
        step_s = statistics.median(times)
        engine._forget(home, 0)
        engine.prime(scene.agent.prefix)
        llama_cpp.llama_decode = timed
        try:
            whole = []
            for ask in ASKS:
                spent[0], started_s = 0.0, time.perf_counter()
                (reply,) = engine.generate([Request(scene.prompt(ask), scene.grammar, Limits(REPLY_TOKENS))])
                scene.execute(reply.text)
                seconds = time.perf_counter() - started_s
                whole.append((seconds - spent[0]) / seconds)
        finally:
            llama_cpp.llama_decode = real
    later = calls[1:]
    bounds = [call["steps"] * step_s + (call["prompt_tokens"] + call["forced"]) * prefill_s for call in later]
    return {
        "step_s": round(step_s, 5),
        "prefill_s_per_token": round(prefill_s, 6),
        "bound_s": round(statistics.median(bounds), 4),
        "own_share_median": round(statistics.median(whole[1:]), 4),
    }


def measure(model: Path, template: str, rounds: int, binary: Path | None, folder: Path) -> dict[str, Any]:
    """Return every side's figures on one model, sides in turns, medians over rounds."""
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "ours, empty cache": [], "llama-cpp-python": []}
    last: list[dict[str, Any]] = []
    for number in range(rounds):
        fresh = str(folder / f"cache-{number}")
        runs["ours, empty cache"].append(summary(run_side("ours", model, template, fresh)))
        last = run_side("ours", model, template, fresh)
        runs["ours"].append(summary(last))
        runs["llama-cpp-python"].append(summary(run_side("llama-cpp-python", model, template, fresh)))
        if binary:
            runs.setdefault("llama.cpp server", []).append(summary(run_server(binary, model, template, folder)))
        print({side: found[-1] for side, found in runs.items()}, file=sys.stderr, flush=True)
    figures = {
        side: {key: statistics.median(one[key] for one in found) for key in found[0]} for side, found in runs.items()
    }
    others = [side for side in figures if not side.startswith("ours")]
    mine = figures["ours"]
    return {
        "figures": figures,
        "bound": bound(model, last, template),
        "times_faster": {
            other: {
                "first": round(figures[other]["first_s"] / mine["first_s"], 2),
                "later": round(figures[other]["later_median_s"] / mine["later_median_s"], 2),
            }
            for other in others
        },
    }


def main() -> int:
    """Run the command; exit code 5 if a target against the server is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file of the starter's fine-tune")
    parser.add_argument("--template", default="chatml")
    parser.add_argument("--shape", action="append", default=[], choices=["tiny", "1b", "3b"])
    parser.add_argument("--vocabularies", type=Path, help="folder with ggml-vocab-llama-bpe.gguf, for --shape")
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--cache", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        for call in SIDES[given.side](given.model, given.template, given.cache):
            print(json.dumps(call), flush=True)
        return 0
    models: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=given.scratch) as text:
        folder = Path(text)
        if given.model:
            models["starter"] = measure(given.model, given.template, given.rounds, given.llama_server, folder)
        for shape in given.shape:
            from benchmarks.export import make_shape  # a side's process need not import it

            (folder / shape).mkdir()
            model = make_shape(shape, given.vocabularies, folder / shape)
            models[shape] = measure(model, "llama3", given.rounds, given.llama_server, folder / shape)
    command = ["python -m benchmarks.agent_latency", *(["--model MODEL"] if given.model else [])]
    command += [f"--shape {shape}" for shape in given.shape]
    result = {"command": " ".join(command), "machine": this_machine(), "cores": os.cpu_count(),
              "versions": installed_versions(), "models": models}  # fmt: skip
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(models, indent=1))
    ratios = [found["times_faster"].get("llama.cpp server", {}) for found in models.values()]
    met = all(one.get("later", 0) >= 3 and one.get("first", 0) >= 5 for one in ratios)
    return 0 if met else 5


if __name__ == "__main__":
    sys.exit(main())
