"""Where the tests' vocabularies come from: made ones always, published ones where they are found.

Published ones are llama.cpp's ggml-vocab-*.gguf (models/ of its sources). EDGEWRIGHT_VOCABULARIES names their folder;
without it they are looked for in runs/vocabularies and beside the checkout.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.made_vocabularies import NAMES, PUBLISHED, ROOT

VARIABLE = "EDGEWRIGHT_VOCABULARIES"
VOCABULARIES = [("made", name) for name in NAMES] + [("published", name) for name in PUBLISHED]
Find = Callable[[str], Path]  # a source's folder; conftest.py has it as the fixture `vocabularies`


def published_folder() -> Path:
    """Return the folder of the published vocabularies, which may not exist."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    own = ROOT / "runs" / "vocabularies"
    return own if own.is_dir() else ROOT.parent / "shared" / "data" / "vocab"


def require_published() -> Path:
    """Return the folder of the published vocabularies, or skip the test."""
    folder = published_folder()
    missing = [name for name in PUBLISHED if not (folder / f"ggml-vocab-{name}.gguf").is_file()]
    if missing:
        pytest.skip(f"no published vocabularies: {VARIABLE} may name a folder of llama.cpp's models/ggml-vocab-*.gguf")
    return folder


@contextmanager
def open_vocabulary(folder: Path, name: str) -> Iterator[Any]:
    """Give llama.cpp's handle of one of NAMES in a source's folder."""
    import llama_cpp

    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(folder / f"ggml-vocab-{name}.gguf").encode(), params)
    assert model, f"llama.cpp does not load {name} in {folder}"
    yield llama_cpp.llama_model_get_vocab(model)
    llama_cpp.llama_model_free(model)
