"""A base model's tokenizer.json as the vocabulary that llama.cpp reads: byte-level BPE, or SentencePiece's BPE.

llama.cpp splits text for byte-level BPE by a regex that it knows by name (`tokenizer.ggml.pre`); one it does not know
would give other tokens than training saw, so anything unknown is refused here, and parity.py compares the tokens.
SentencePiece's pieces are joined by their scores there and by a list of merges in tokenizer.json: a piece's score here
is where its first merge stands in that list.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import UsageError

# llama.cpp src/llama-vocab.cpp: what each `pre` name splits by; the Hugging Face side is each family's tokenizer.json.
_SPLIT_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SPLIT_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_BY_PATTERN = {
    _SPLIT_LETTERS + r"\p{N}" + _SPLIT_REST: "qwen2",
    _SPLIT_LETTERS + r"\p{N}{1,3}" + _SPLIT_REST: "llama-bpe",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt-2",
}
# llama.cpp sets ignore_merges for these (LLAMA_VOCAB_PRE_TYPE_LLAMA3) and for no other name above.
PRE_THAT_IGNORES_MERGES = {"llama-bpe"}
# gguf.TokenType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BLANK = "\u2581"  # SentencePiece's
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
# llama.cpp src/llama-vocab.cpp: after which added tokens white space is dropped if the model's name has `phi-3`.
PHI3_KEEPS_BLANKS_AFTER = {"<unk>", "<s>", "<|endoftext|>"}


@dataclass(frozen=True)
class Vocabulary:
    """What the GGUF says about tokens.

    Attributes:
        model: "gpt2" for byte-level BPE, "llama" for SentencePiece's.
        pre: llama.cpp's name of the splitting regex.
        tokens: text by token id, for byte-level BPE byte-encoded except for added tokens; one for each embedding row.
        scores: by token id, for SentencePiece's.
        has_blank_before: whether a text begins as if it had a blank before it.
        drops_blanks_after: whether white space after added tokens is dropped, as Phi-3's tokenizer does.
        types: gguf.TokenType by token id.
        merges: "left right", best first.
        end_of_turn: id of the template's end-of-turn token.
        bos, padding: ids, if the tokenizer has them.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    end_of_turn: int
    bos: int | None
    padding: int | None
    scores: tuple[float, ...] = ()
    has_blank_before: bool = False
    drops_blanks_after: bool = False


def read_vocabulary(base: Path, rows: int, end_of_turn: str) -> Vocabulary:
    """Return the vocabulary of a base model's folder.

    Args:
        base: has tokenizer.json and, for bos and padding, tokenizer_config.json.
        rows: rows of the embedding; ids that the tokenizer leaves free are filled with unused tokens. An added token
            without a row, as Gemma 3's text models have for images, is left out: it cannot be given to the model.
        end_of_turn: the chat template's end-of-turn token, which must be one token.

    Raises:
        UsageError: not a byte-level BPE that llama.cpp knows, or the end-of-turn text is not one token.
    """
    plain = _read_json(base / "tokenizer.json")
    where = base / "tokenizer.json"
    model = plain.get("model") or {}
    if model.get("type") != "BPE":
        raise UsageError(f"{where}: model {model.get('type')!r} is not supported", hint="supported: BPE")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise UsageError(f"{where}: {key} {model[key]!r} is not supported by llama.cpp")
    is_bytes = not model.get("byte_fallback")
    pre = _byte_level_pre(plain, where) if is_bytes else "default"
    if bool(model.get("ignore_merges")) != (pre in PRE_THAT_IGNORES_MERGES):
        raise UsageError(f"{where}: ignore_merges {model.get('ignore_merges')} does not go with llama.cpp's {pre!r}")
    texts = {number: text for text, number in model["vocab"].items()}
    types = {number: NORMAL if is_bytes else _piece_type(text, model) for number, text in texts.items()}
    added_tokens = plain.get("added_tokens") or []
    for added in added_tokens:
        if added["id"] >= rows and added["content"] not in model["vocab"]:
            continue
        for key in ("single_word", "lstrip"):
            if added.get(key):
                raise UsageError(f"{where}: added token {added['content']!r} has {key}, which llama.cpp does not do")
        texts[added["id"]] = added["content"]
        if types.get(added["id"]) != UNKNOWN:
            types[added["id"]] = _added_type(added, is_bytes)
    if texts and max(texts) >= rows:
        raise UsageError(f"{where}: token {max(texts)} has no row in the embedding, which has {rows}")
    ids = {text: number for number, text in texts.items() if types[number] in (CONTROL, USER_DEFINED)}
    if end_of_turn not in ids:
        raise UsageError(
            f"{where}: the template's end-of-turn {end_of_turn!r} is not one token of this vocabulary",
            hint="choose the template of the base model's family, or a base that has this token",
        )
    special = _read_json(base / "tokenizer_config.json") if (base / "tokenizer_config.json").is_file() else {}
    merges = tuple(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    return Vocabulary(
        model="gpt2" if is_bytes else "llama",
        pre=pre,
        tokens=tuple(texts.get(number, f"[PAD{number}]") for number in range(rows)),
        types=tuple(types.get(number, UNUSED) for number in range(rows)),
        merges=merges if is_bytes else (),
        end_of_turn=ids[end_of_turn],
        bos=ids.get(_token_text(special.get("bos_token"))),
        padding=ids.get(_token_text(special.get("pad_token"))),
        scores=() if is_bytes else _scores(texts, merges, rows),
        has_blank_before=not is_bytes and _has_blank_before(plain, where),
        drops_blanks_after=_drops_blanks_after(added_tokens, where),
    )


def _added_type(added: dict[str, Any], is_bytes: bool) -> int:
    """Return the type of an added token; runs of blanks are pieces, as which llama.cpp prints them as blanks."""
    if not is_bytes and not added["content"].strip(BLANK):
        return NORMAL
    return CONTROL if added["special"] else USER_DEFINED


def _piece_type(text: str, model: dict[str, Any]) -> int:
    if text == model.get("unk_token"):
        return UNKNOWN
    return BYTE if _BYTE_TOKEN.fullmatch(text) else NORMAL


def _scores(texts: dict[int, str], merges: tuple[str, ...], rows: int) -> tuple[float, ...]:
    """Return a score for each token: pieces that are merged earlier have higher ones."""
    first: dict[str, int] = {}
    for place, merge in enumerate(merges):
        first.setdefault(merge.replace(" ", ""), place)
    return tuple(-float(first.get(texts.get(number, ""), len(merges))) for number in range(rows))


def _has_blank_before(plain: dict[str, Any], where: Path) -> bool:
    """Return whether the tokenizer puts a blank before a text; blanks become BLANK in any case."""
    normalizer, pre_tokenizer = plain.get("normalizer"), plain.get("pre_tokenizer")
    prepend = {"type": "Prepend", "prepend": BLANK}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    if pre_tokenizer == split and normalizer == replace:  # Gemma's, which then finds no blank
        return False
    if pre_tokenizer is None and normalizer == {"type": "Sequence", "normalizers": [prepend, replace]}:
        return True
    if pre_tokenizer is None and normalizer in (replace, {"type": "Sequence", "normalizers": [replace]}):
        return False
    metaspace = {"type": "Metaspace", "replacement": BLANK, "split": False}
    schemes = {"always": True, "never": False, "first": False}  # what is rendered begins with a special token
    scheme = (pre_tokenizer or {}).get("prepend_scheme")
    if normalizer is None and scheme in schemes and pre_tokenizer == metaspace | {"prepend_scheme": scheme}:
        return schemes[scheme]
    raise UsageError(
        f"{where}: normalizer {json.dumps(normalizer)[:200]} with pre-tokenizer {pre_tokenizer} is not known"
    )


def _drops_blanks_after(added_tokens: list[dict[str, Any]], where: Path) -> bool:
    stripped = {added["content"] for added in added_tokens if added.get("rstrip")}
    if stripped and stripped != {added["content"] for added in added_tokens} - PHI3_KEEPS_BLANKS_AFTER:
        raise UsageError(f"{where}: added token {min(stripped)!r} has rstrip, which llama.cpp does for Phi-3's only")
    return bool(stripped)


def _byte_level_pre(plain: dict[str, Any], where: Path) -> str:
    if (plain.get("normalizer") or {"type": "NFC"}).get("type") != "NFC":
        raise UsageError(f"{where}: normalizer {plain['normalizer']['type']!r} is not supported by llama.cpp")
    return _pre_of(plain.get("pre_tokenizer") or {}, where)


def _token_text(value: Any) -> str:
    return str(value.get("content", "")) if isinstance(value, dict) else str(value or "")


def _pre_of(pre_tokenizer: dict[str, Any], where: Path) -> str:
    steps = pre_tokenizer.get("pretokenizers") if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]
    steps = steps or [{}]
    kinds = [step.get("type") for step in steps]
    last = steps[-1]
    if kinds[-1] == "ByteLevel" and not last.get("add_prefix_space"):
        if kinds == ["ByteLevel"] and last.get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and last.get("use_regex", True):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not last.get("use_regex", True):
            split = steps[0]
            pattern = (split.get("pattern") or {}).get("Regex", "")
            if split.get("behavior") == "Isolated" and not split.get("invert") and pattern in PRE_BY_PATTERN:
                return PRE_BY_PATTERN[pattern]
    raise UsageError(
        f"{where}: pre-tokenizer {json.dumps(pre_tokenizer, ensure_ascii=False)[:300]} is not known",
        hint=f"known: {', '.join([*PRE_BY_PATTERN.values(), 'smollm'])}",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if not isinstance(plain, dict):
        raise UsageError(f"{path}: not a JSON object")
    return plain
