"""Models graded on a Ray cluster: two nodes on this machine, each with a core, beside the same without it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.errors import UsageError
from edge_agent.evaluation.models import ray_cluster

ROOT = Path(__file__).parents[4]
START_S = 60
CASES = """
- {ask: turn the kitchen light on, expect: {kitchen_light.on: true}}
- {ask: turn the porch light on, kind: other, expect: {porch_light.on: true}}
- {turns: [{ask: lock the front door, expect: {}}, {ask: is it locked?, expect: {}}]}
"""
WORK = """
import os, sys
from pathlib import Path
from edge_agent.evaluation.models.model import Model
from edge_agent.evaluation.models.placement import Placement, alone, for_each
def work(model, file, deaths):
    with open(file, "a") as lives:
        lives.write(f"{os.getpid()}\\n")
    if len(Path(file).read_text().splitlines()) <= deaths:
        os._exit(1)
    return model.label
placement, given = Placement(ray=sys.argv[1]), (sys.argv[2], int(sys.argv[3]))
models = [Model("its label", "quant", "some/model")]
print(*for_each(models, placement, lambda model: alone(model, placement, work, *given)))
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("ray")
    nodes = [start_node(folder / "head.log", "--head", "--port=0", "--include-dashboard=false")]
    address = wait_for(r"ray start --address='([^']+)'", folder / "head.log", nodes[0])
    nodes.append(start_node(folder / "other.log", f"--address={address}"))
    wait_for("(Ray runtime started)", folder / "other.log", nodes[1])
    yield address
    for one in reversed(nodes):
        one.terminate()
        one.wait(START_S)


def start_node(log: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1", *words]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=80000000", "--disable-usage-stats"]
    with log.open("w") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def wait_for(pattern: str, log: Path, node: subprocess.Popen[bytes]) -> str:
    end_s = time.monotonic() + START_S
    while not (found := re.search(pattern, log.read_text())):
        assert time.monotonic() < end_s and node.poll() is None, log.read_text()
        time.sleep(0.1)
    return found[1]


def evaluate(out: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgewright", "eval", *map(str, words), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.slow
def test_results_are_those_of_one_machine(address: str, starter: Path, tmp_path: Path) -> None:
    cases, other = tmp_path / "cases.yaml", tmp_path / "other.gguf"
    cases.write_text(CASES, encoding="utf-8")
    shutil.copyfile(starter, other)
    words = (starter, other, "rules", "--cases", cases, "--fresh")
    here, there = evaluate(tmp_path / "here", *words), evaluate(tmp_path / "there", *words, "--ray", address)
    assert there.returncode == here.returncode == 0, there.stderr
    assert "Ray: 2 machines" in there.stderr
    first, second = (
        json.loads((tmp_path / name / "own_cases.json").read_text())["models"] for name in ("here", "there")
    )
    assert first == second
    assert [one["label"] for one in second] == ["starter", "other", "rules, en"]
    assert len(second[0]["turns"]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [0, 2, 3])
def test_a_worker_that_dies_is_started_again(address: str, deaths: int, tmp_path: Path) -> None:
    script, lives = tmp_path / "script.py", tmp_path / "lives"
    script.write_text(WORK)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), address, str(lives), str(deaths)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stderr.count("Ray: the worker that evaluated its label died; once more") == min(deaths, 2)
    if deaths < 3:
        assert done.stdout == "its label\n"
        assert len({*lives.read_text().splitlines()}) == deaths + 1
    else:
        assert "UnavailableError: the worker that evaluated its label died 3 times" in done.stderr


def test_a_machine_must_have_the_same_program_and_files(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    program = ray_cluster._program()
    with pytest.raises(UsageError, match=r"has another Edgewright \(.*, not another\)"):
        ray_cluster._on_worker("another", {}, len, ["x"])
    with pytest.raises(UsageError, match=r"has no .*model\.gguf"):
        ray_cluster._on_worker(program, {str(file): "0"}, len, ["x"])
    file.write_bytes(b"x")
    with pytest.raises(UsageError, match=r"model\.gguf is another file than here"):
        ray_cluster._on_worker(program, {str(file): "0"}, len, ["x"])
    assert ray_cluster._on_worker(program, {}, len, [["x"]]) == 1


@pytest.mark.parametrize(
    ("given", "code", "line"),
    [
        ("nonsense", 2, "error: --ray nonsense; hint: give auto, HOST:PORT or ray://HOST:PORT"),
        ("127.0.0.1:1", 3, "error: no Ray cluster at 127.0.0.1:1: [Errno 111] Connection refused; hint: `ray start"),
    ],
)
def test_no_cluster_is_one_line(given: str, code: int, line: str, tmp_path: Path) -> None:
    done = evaluate(tmp_path, "rules", "-n", 1, "--ray", given)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert done.stderr.startswith(line)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="--ray needs the package ray"):
        ray_cluster.ray_cluster("auto")
