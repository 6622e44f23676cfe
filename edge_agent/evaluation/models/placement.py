"""Where models are graded: each alone in a fresh process of this machine, or on the machines of a Ray cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, TypeVar

from devices.errors import UnavailableError
from edge_agent.engine.worker import end_with_parent
from edge_agent.evaluation.baselines.endpoint import ENDPOINT
from edge_agent.evaluation.baselines.rules import RULES
from edge_agent.evaluation.models.model import Model
from edge_agent.evaluation.models.ray_cluster import RayCluster, ray_cluster

Result = TypeVar("Result")


@dataclass(frozen=True)
class Placement:
    """How and where models run.

    Attributes:
        device: cpu or cuda.
        gpu_layers: llama.cpp's count; -1 for all.
        load_in_4bit: Hugging Face models, as NF4.
        intents: as Simulation's.
        ray: address of a Ray cluster; "" for this machine. It decides no reply.
    """

    device: str = "cpu"
    gpu_layers: int = 0
    load_in_4bit: bool = False
    intents: str = ""
    ray: str = field(default="", repr=False)

    @property
    def gpus(self) -> int:
        """How many GPUs a model takes."""
        return int(self.device != "cpu" or self.gpu_layers != 0)


def for_each(models: Sequence[Model], placement: Placement, work: Callable[[Model], Result]) -> list[Result]:
    """Return what a function gives for each model: one after another here, all at once on a Ray cluster.

    Raises:
        UnavailableError: no cluster answers at the address; or as the function.
    """
    cluster = _cluster(placement)
    if cluster is None:
        return [work(model) for model in models]
    with ThreadPoolExecutor(len(models)) as pool, cluster.in_use():  # an error ends what else runs there
        return list(pool.map(work, models))


def alone(model: Model, placement: Placement, work: Callable[..., Any], *given: Any) -> Any:
    """Return what a function gives for a model and other arguments, in a fresh process.

    Raises:
        UsageError: a machine of the cluster has another program, or not the model's file.
        UnavailableError: the process died.
    """
    cluster = _cluster(placement) if model.engine not in (RULES, ENDPOINT) else None  # those load nothing
    if cluster:
        return cluster.run(model, placement.gpus, work, given)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        try:
            return pool.submit(work, model, *given).result()
        except BrokenProcessPool as error:
            raise UnavailableError(f"the process that evaluated {model.label} died", hint="out of memory?") from error


def _cluster(placement: Placement) -> RayCluster | None:
    return ray_cluster(placement.ray) if placement.ray else None
