"""The starter, and what is asked of it: for tests whose replies must have the form that the grammar wants."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.site.site import load_site
from edge_agent.engine.engine import Request
from edge_agent.evaluation.case_simulation import CaseSimulation
from edge_agent.wire.chat_template import load_template
from export.convert.gguf_writer import convert
from finetune.data.generator import generate_cases
from finetune.recipe import STARTER_FOLDER


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As F16. Its decisions are clear; random weights nearly tie, and rounding swaps tokens."""
    path = tmp_path_factory.mktemp("starter") / "starter.gguf"
    convert(STARTER_FOLDER, None, path, template=load_template("chatml"), name="starter", metadata={})
    return path


@pytest.fixture(scope="module")
def simulation() -> CaseSimulation:
    return CaseSimulation(load_site("home"), load_template("chatml"))


@pytest.fixture(scope="module")
def requests(simulation: CaseSimulation) -> list[Request]:
    """The first requests of six turns in the home."""
    return [next(simulation.start_turn(case)[0]) for case in generate_cases(simulation.site, 6, 3)]
