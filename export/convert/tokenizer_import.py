"""The vocabulary of a GGUF file as tokenizer.json: what tokenizer.py does, backwards.

SentencePiece's pieces have scores there and merges here: a merge makes a piece, and the better its score, the earlier
it comes. parity.check_tokens compares the tokens of both sides afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from devices.errors import UsageError
from export.convert.tokenizer import (
    BLANK,
    CONTROL,
    PHI3_KEEPS_BLANKS_AFTER,
    PRE_BY_PATTERN,
    PRE_THAT_IGNORES_MERGES,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)

# llama.cpp src/llama-vocab.cpp: other names of the same splitting
_OTHER_NAMES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2", "phi-2": "gpt-2"}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_DIGITS = {"type": "Digits", "individual_digits": True}
_TO_BLANK = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
_FROM_BLANK = {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}


def tokenizer_json(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a tokenizer.json of what a GGUF file says of its tokens.

    Args:
        fields: the file's values by key; arrays are lists.
        where: the file, for messages.

    Raises:
        UsageError: a kind of vocabulary, or a splitting, that is not known.
    """
    kind = fields.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise UsageError(f"{where}: tokenizer {kind!r} is not supported", hint="supported: gpt2 (BPE), llama (SPM)")
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    vocab = {text: number for number, text in enumerate(tokens) if types[number] != UNUSED}
    is_phi3 = kind == "llama" and "phi-3" in str(fields.get("general.name", "")).lower()
    added = [
        _added(number, tokens[number], one in (CONTROL, UNKNOWN), is_phi3)
        for number, one in enumerate(types)
        if one in (CONTROL, USER_DEFINED, UNKNOWN)
    ]
    plain = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "post_processor": None}
    if kind == "gpt2":
        return plain | _byte_level(fields, vocab, where)
    return plain | _sentence_piece(fields, vocab, types)


def _added(number: int, text: str, is_special: bool, is_phi3: bool) -> dict[str, Any]:
    drops_blanks = is_phi3 and text not in PHI3_KEEPS_BLANKS_AFTER
    return {
        "id": number, "content": text, "single_word": False, "lstrip": False, "rstrip": drops_blanks,
        "normalized": False, "special": is_special,
    }  # fmt: skip


def _byte_level(fields: Mapping[str, Any], vocab: dict[str, int], where: str) -> dict[str, Any]:
    named = str(fields.get("tokenizer.ggml.pre", "default"))
    pre, splits = _OTHER_NAMES.get(named, named), {name: pattern for pattern, name in PRE_BY_PATTERN.items()}
    if pre == "gpt-2":
        pre_tokenizer: dict[str, Any] = _BYTE_LEVEL | {"use_regex": True}
    elif pre == "smollm":
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [_DIGITS, _BYTE_LEVEL | {"use_regex": True}]}
    elif pre in splits:
        split = {"type": "Split", "pattern": {"Regex": splits[pre]}, "behavior": "Isolated", "invert": False}
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, _BYTE_LEVEL | {"use_regex": False}]}
    else:
        known = ", ".join([*splits, "smollm", *_OTHER_NAMES])
        raise UsageError(f"{where}: the splitting {named!r} of its tokenizer is not supported", hint=f"known: {known}")
    merges = [merge.split(" ", 1) for merge in fields["tokenizer.ggml.merges"]]
    model = _bpe(vocab, merges) | {"ignore_merges": pre in PRE_THAT_IGNORES_MERGES}
    decoder = _BYTE_LEVEL | {"add_prefix_space": True, "use_regex": True}
    return {"normalizer": None, "pre_tokenizer": pre_tokenizer, "decoder": decoder, "model": model}


def _sentence_piece(fields: Mapping[str, Any], vocab: dict[str, int], types: Sequence[int]) -> dict[str, Any]:
    has_blank_before = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
    prepend = [{"type": "Prepend", "prepend": BLANK}] if has_blank_before else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if has_blank_before else []
    unknown = next((text for text, number in vocab.items() if types[number] == UNKNOWN), None)
    model = _bpe(vocab, _merges(vocab, fields["tokenizer.ggml.scores"]))
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, _TO_BLANK]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [_FROM_BLANK, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": model | {"unk_token": unknown, "fuse_unk": True, "byte_fallback": True},
    }


def _bpe(vocab: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": vocab, "merges": merges,
    }  # fmt: skip


def _merges(vocab: dict[str, int], scores: Sequence[float]) -> list[list[str]]:
    """Return every pair of pieces that makes a piece, in the order in which SentencePiece would join them."""
    found = []
    for text, number in vocab.items():
        for place in range(1, len(text)):
            left, right = text[:place], text[place:]
            if left in vocab and right in vocab:
                found.append((-scores[number], vocab[left], vocab[right], left, right))
    return [[left, right] for *_, left, right in sorted(found)]
