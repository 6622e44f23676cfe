"""Models graded on the machines of a Ray cluster, with the results of one machine.

A model is graded as a whole by one worker process, one on each machine at a time. Each machine must have this program,
and the model's files under the same path; both are compared. A worker that dies is started again twice, which is said.

Does not guard against: machines whose processors round differently; whoever can reach a Ray cluster can run code on it.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from platform import node
from typing import Any

from devices.durable import sha256_of
from devices.errors import UnavailableError, UsageError
from edge_agent.evaluation.models.model import Model
from edge_agent.evaluation.own.result_cache import program_digest

ATTEMPTS = 3  # of one model, if workers die
ANSWERS_WITHIN_S = 5
_ADDRESS = re.compile(r"auto|(?:ray://)?(?P<host>[\w.-]+):(?P<port>\d+)")


@cache
def ray_cluster(address: str) -> RayCluster:
    """Return the cluster at an address, as `ray.init` takes it: `auto`, `HOST:PORT`, `ray://HOST:PORT`.

    Raises:
        UsageError: the package ray is not installed, or it is no address.
        UnavailableError: no cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray needs the package ray", hint="pip install edgewright[ray]") from error
    if not (parts := _ADDRESS.fullmatch(address)):
        raise UsageError(f"--ray {address}", hint="give auto, HOST:PORT or ray://HOST:PORT")
    try:
        if parts["host"]:  # ray.init itself tries for ever
            socket.create_connection((parts["host"], int(parts["port"])), ANSWERS_WITHIN_S).close()
        ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level="error")
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        hint = "`ray start --head` starts one; `ray status` shows it"
        raise UnavailableError(f"no Ray cluster at {address}: {_first_line(error)}", hint=hint) from error
    return RayCluster(ray)


class RayCluster:
    """A cluster that this process is connected to."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        machines = [one["Resources"] for one in ray.nodes() if one["Alive"] and one["Resources"].get("CPU")]
        if not machines:
            raise UnavailableError("the Ray cluster has no machine with a processor", hint="`ray status` shows it")
        self._cores = min(one["CPU"] for one in machines)
        _say(f"Ray: {len(machines)} machine{'s' if len(machines) > 1 else ''}")

    def run(self, model: Model, gpus: int, work: Callable[..., Any], given: Sequence[Any]) -> Any:
        """Return what a function gives for a model and other arguments on one of the machines.

        Raises:
            UsageError: that machine has another program, or not the model's file.
            UnavailableError: the worker died three times.
        """
        placed, files = _with_absolute_paths(model)
        as_wanted = self._ray.remote(
            num_cpus=self._cores, num_gpus=gpus, max_calls=1, max_retries=0, scheduling_strategy="SPREAD"
        )
        task = as_wanted(_on_worker)
        died = ""
        for _ in range(ATTEMPTS):
            if died:
                _say(f"Ray: the worker that evaluated {model.label} died; once more")
            try:
                return self._ray.get(task.remote(_program(), files, work, (placed, *given)))
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except self._ray.exceptions.RayError as error:
                died = _first_line(error)
        raise UnavailableError(
            f"the worker that evaluated {model.label} died {ATTEMPTS} times: {died}", hint="out of memory?"
        )

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Leave the cluster at the end, and keep what Ray prints of its own workers off standard output."""
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            try:
                yield
            finally:
                ray_cluster.cache_clear()
                self._ray.shutdown()


def _on_worker(program: str, files: Mapping[str, str], work: Callable[..., Any], given: Sequence[Any]) -> Any:
    """Return what a function gives, if this machine has the same program and files. Raises UsageError if not."""
    if (mine := _program()) != program:
        raise UsageError(f"{node()} has another Edgewright ({mine}, not {program})", hint="install the same one there")
    for path, digest in files.items():
        if not Path(path).is_file():
            raise UsageError(f"{node()} has no {path}", hint="models must lie under the same path on every machine")
        if sha256_of(Path(path)) != digest:
            raise UsageError(f"{node()}: {path} is another file than here", hint="copy it there again")
    return work(*given)


def _program() -> str:
    return f"{program_digest()[:12]}, llama-cpp-python {version('llama-cpp-python')}"


def _with_absolute_paths(model: Model) -> tuple[Model, dict[str, str]]:
    """Return a model whose files are found from any folder, and their SHA-256; folders are not compared."""
    path, adapter = (
        str(Path(one).resolve()) if one and Path(one).exists() else one for one in (model.path, model.adapter)
    )
    files = {one: sha256_of(Path(one)) for one in (path, adapter) if one and Path(one).is_file()}
    return replace(model, path=path, adapter=adapter), files


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
