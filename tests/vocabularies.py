"""The real vocabularies of model families, GGUF files beside the checkout; a test that wants one is skipped without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import pytest

VOCABULARIES = Path(__file__).resolve().parents[2] / "shared" / "data" / "vocab"


@contextmanager
def open_vocabulary(name: str) -> Iterator[Any]:
    """Give llama.cpp's handle of a vocabulary: `llama-bpe`, `llama-spm`, `phi-3` or `qwen2`."""
    path = VOCABULARIES / f"ggml-vocab-{name}.gguf"
    if not path.exists():
        pytest.skip(f"no {path}")
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    yield llama_cpp.llama_model_get_vocab(model)
    llama_cpp.llama_model_free(model)
