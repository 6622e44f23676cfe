"""For every test: no network, and no way out to a model hub either.

Sockets are blocked by pytest-socket (pyproject.toml, `addopts`). A test whose real part is a server on this machine
asks for it with `@pytest.mark.allow_hosts(["127.0.0.1"])`.

Does not guard against: a child process that opens sockets; the variables below reach it, the block does not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.made_vocabularies import make_vocabularies
from tests.vocabularies import Find, require_published

# Before anything imports transformers or datasets, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # on tiny models, threads spend longer waiting for each other


@pytest.fixture(scope="module", autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Have small numbers again after tests that train, which has the processor take them for 0."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> Find:
    """Give a source's folder of ggml-vocab-*.gguf: "made" ones are made once, "published" ones are found or skipped."""

    @cache
    def made() -> Path:
        return make_vocabularies(tmp_path_factory.mktemp("vocabularies"))

    return lambda source: made() if source == "made" else require_published()
