"""Every family's base model, small: random weights in its shape, and a vocabulary in the form the family publishes.

Used by the tests of the exporter and by benchmarks/converter_parity.py.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from tests import made_vocabularies
from tests.tiny_base import spread_weights

FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")  # what an adapter changes of Phi-3
LONG = {
    "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 512,
    "short_factor": [1.0 + place / 40 for place in range(32)], "long_factor": [2.0 + place for place in range(32)],
}  # fmt: skip
# Source: config.json of Llama-3.2-1B-Instruct.
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
# transformers' configuration, vocabulary, template, changes of the shape
FAMILIES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "llama-3.2": ("LlamaConfig", "llama-bpe", "llama3", {"tie_word_embeddings": True, "rope_parameters": LLAMA3,
                                                         "max_position_embeddings": 131072}),
    "mistral": ("MistralConfig", "llama-spm", "mistral", {"sliding_window": None}),
    "qwen2.5": ("Qwen2Config", "qwen2", "chatml", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", "qwen2", "chatml", {"tie_word_embeddings": True, "head_dim": 128}),
    "gemma-3": ("Gemma3TextConfig", "gemma", "gemma", {"tie_word_embeddings": True, "num_hidden_layers": 7,
                                                       "head_dim": 128, "query_pre_attn_scalar": 128,
                                                       "sliding_window": 96}),
    "phi-3": ("Phi3Config", "phi-3", "phi3", {"sliding_window": 2047}),
    "phi-3-128k": ("Phi3Config", "phi-3", "phi3", {"rope_parameters": LONG, "max_position_embeddings": 16384,
                                                   "original_max_position_embeddings": 512}),
}  # fmt: skip
SHAPE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 4096, "pad_token_id": None,
         "tie_word_embeddings": False}  # fmt: skip
PUBLISHED = [name for name, (_, vocabulary, *_) in FAMILIES.items() if vocabulary in made_vocabularies.PUBLISHED]
_LLAMA3_START = "<|begin_of_text|>"
_PHI3_KEEPS_BLANKS = {"<unk>", "<s>", "<|endoftext|>"}
_FILLER = re.compile(r"\[PAD\d+\]")


@cache
def read_vocabulary(file: Path) -> tuple[Any, int]:
    """Return the tokenizer that transformers makes of a GGUF file, and how many tokens the file has.

    Raises:
        UsageError: there is no such file.
    """
    import llama_cpp
    from transformers import AutoTokenizer

    if not file.is_file():
        raise UsageError(f"no vocabulary {file}", hint="it is in models/ of llama.cpp's sources")
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), parameters)
    rows = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    llama_cpp.llama_model_free(model)
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name), rows


def make_base(family: str, vocabularies: Path, folder: Path, shape: dict[str, Any] | None = None) -> Path:
    """Save a family's base as transformers 5 does: random bfloat16 weights in SHAPE or another.

    Args:
        family: one of FAMILIES.
        vocabularies: folder of ggml-vocab-*.gguf.
        folder: to save in.
        shape: other values of the configuration.
    """
    import torch
    import transformers

    config_name, vocabulary, _, changes = FAMILIES[family]
    rows = save_tokenizer(vocabulary, vocabularies, folder)
    torch.manual_seed(3)
    config = getattr(transformers, config_name)(**SHAPE | {"vocab_size": rows} | changes | (shape or {}))
    model = transformers.AutoModelForCausalLM.from_config(config)
    spread_weights(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def save_tokenizer(vocabulary: str, vocabularies: Path, folder: Path) -> int:
    """Save a vocabulary as its family publishes it for transformers; return how many tokens its GGUF file has."""
    tokenizer, rows = read_vocabulary(vocabularies / f"ggml-vocab-{vocabulary}.gguf")
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    published = as_published(json.loads(path.read_text(encoding="utf-8")), vocabulary, rows)
    path.write_text(json.dumps(published), encoding="utf-8")
    return rows


def as_published(plain: dict[str, Any], vocabulary: str, rows: int) -> dict[str, Any]:
    """Return a tokenizer.json as the family's own: without names of unused rows, and with what a GGUF cannot say."""
    added_tokens = [one for one in plain["added_tokens"] if one["id"] < rows and not _FILLER.fullmatch(one["content"])]
    model = plain["model"]
    model["vocab"] = {text: number for text, number in model["vocab"].items() if not _FILLER.fullmatch(text)}
    model["ignore_merges"] = vocabulary == "llama-bpe"
    if model.get("byte_fallback"):
        model["unk_token"] = "<unk>"
    if vocabulary == "gemma":  # of the models that see, whose file this is
        image = {"id": rows, "content": "<image_soft_token>", "special": True}
        added_tokens.append(added_tokens[0] | image)
    if vocabulary == "phi-3":
        for added in added_tokens:
            added["rstrip"] = added["content"] not in _PHI3_KEEPS_BLANKS
    if ids := [added["id"] for added in added_tokens if added["content"] == _LLAMA3_START]:
        processor = plain["post_processor"]
        processor["single"].insert(0, {"SpecialToken": {"id": _LLAMA3_START, "type_id": 0}})
        processor["special_tokens"] = {_LLAMA3_START: {"id": _LLAMA3_START, "ids": ids, "tokens": [_LLAMA3_START]}}
    return plain | {"added_tokens": added_tokens}
