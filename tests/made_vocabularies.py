"""Small vocabularies in each family's form, made of this project's own texts, as GGUF files named like llama.cpp's.

Splitting rule, kind of BPE, special tokens and their types are the family's; which pieces there are is not, and there
are some thousands instead of 32,000 to 152,000. They are read as the published files are (families.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from export.convert.tokenizer import BLANK, BYTE, CONTROL, NORMAL, PRE_BY_PATTERN, UNKNOWN, USER_DEFINED

ROOT = Path(__file__).resolve().parents[1]
PIECES = 3000  # learnt ones, about
PUBLISHED = ("llama-bpe", "llama-spm", "phi-3", "qwen2")  # those that llama.cpp has, too
NAMES = (*PUBLISHED, "gemma")
# Source: the families' tokenizer.json, and the types in llama.cpp's models/ggml-vocab-*.gguf.
LLAMA3_SPECIAL = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
)  # fmt: skip
QWEN2_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PHI3_SPECIAL = (
    "<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>", "<|placeholder4|>",
    "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>",
)  # fmt: skip
GEMMA_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
GEMMA_TAGS = ("<unused0>", "<table>", "</table>", "<tr>", "</tr>", "<b>", "</b>", "<code>", "</code>")
LONGEST_RUN = 31  # of Gemma's lines' ends, and of its blanks
UNUSED_ROWS = 21  # of Qwen2's and Phi-3's embeddings, which have more rows than there are tokens
BLANK_RUNS = (2, 4, 8, 16, 3, 5, 6, 7)  # Llama 2's longest is 16
IS_NEVER = -1e9  # Llama 2's score of a piece that no merge makes

Token = tuple[str, int, float]  # text, gguf.TokenType, score


def make_vocabularies(folder: Path) -> Path:
    """Write ggml-vocab-NAME.gguf for each of NAMES; return `folder`."""
    for name in NAMES:
        path = folder / f"ggml-vocab-{name}.gguf"
        if name in {"llama-bpe", "qwen2"}:
            _write_byte_level(path, name)
        elif name == "gemma":
            _write_gemma(path)
        else:
            _write_sentence_pieces(path, name)
    return folder


def _texts() -> Iterable[str]:
    files = [ROOT / "README.md", ROOT / "LICENSE", *ROOT.glob("docs/*.md"), *ROOT.glob("edge_agent/**/*.py")]
    return [path.read_text(encoding="utf-8") for path in sorted(files)]


def _write_byte_level(path: Path, name: str) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    pattern = next(pattern for pattern, pre in PRE_BY_PATTERN.items() if pre == name)
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    pieces, merges = _learnt(tokenizer)
    if name == "qwen2":
        pieces.append("</s>")  # a plain piece of theirs, which its splitting rule never lets come about
    special = LLAMA3_SPECIAL if name == "llama-bpe" else QWEN2_SPECIAL
    tokens = [(text, NORMAL, 0.0) for text in pieces] + [(text, CONTROL, 0.0) for text in special]
    if name == "qwen2":
        tokens += [(f"[PAD{len(tokens) + place}]", USER_DEFINED, 0.0) for place in range(UNUSED_ROWS)]
    first = len(pieces)
    ids = {"bos": first, "eos": first + 1} if name == "llama-bpe" else {"bos": first, "eos": first, "pad": first}
    _write(path, "llama" if name == "llama-bpe" else "qwen2", name, tokens, ids, merges)


def _sentence_pieces() -> tuple[list[str], list[str]]:
    """Return learnt pieces, best first, and characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(BLANK, prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=PIECES, show_progress=False)
    texts = (re.sub(r"[\n<>]", " ", text) for text in _texts())  # a line's end is a byte, a marker no piece
    tokenizer.train_from_iterator(texts, trainer)
    learnt, merges = _learnt(tokenizer)
    return [merge.replace(" ", "") for merge in merges], [*(text for text in learnt if len(text) == 1), "<", ">"]


def _byte_tokens() -> list[Token]:
    return [(f"<0x{byte:02X}>", BYTE, 0.0) for byte in range(256)]


def _write_sentence_pieces(path: Path, name: str) -> None:
    learnt, characters = _sentence_pieces()
    joined = [*(BLANK * count for count in BLANK_RUNS), *learnt]
    is_phi3 = name == "phi-3"
    types = (CONTROL, CONTROL, USER_DEFINED) if is_phi3 else (UNKNOWN, CONTROL, CONTROL)
    tokens: list[Token] = [(text, kind, 0.0) for text, kind in zip(("<unk>", "<s>", "</s>"), types, strict=True)]
    tokens += _byte_tokens()
    tokens += [(text, NORMAL, -float(place)) for place, text in enumerate(dict.fromkeys(joined))]
    tokens += [(text, NORMAL, IS_NEVER) for text in characters]
    ids = {"bos": 1, "eos": 2, "unk": 0}
    if is_phi3:
        ids |= {"eos": len(tokens), "pad": len(tokens)}
        tokens += [(text, CONTROL, 0.0) for text in PHI3_SPECIAL]
        tokens += [(f"[PAD{len(tokens) + place}]", UNKNOWN, 0.0) for place in range(UNUSED_ROWS)]
    _write(path, "phi3" if is_phi3 else "llama", "Phi3" if is_phi3 else name, tokens, ids, None)


def _write_gemma(path: Path) -> None:
    learnt, characters = _sentence_pieces()
    runs = [sign * count for sign in ("\n", BLANK) for count in range(1, LONGEST_RUN + 1) if sign * count != BLANK]
    tokens: list[Token] = [(text, UNKNOWN if text == "<unk>" else CONTROL, 0.0) for text in GEMMA_SPECIAL]
    tokens += [(text, USER_DEFINED, 0.0) for text in [*runs, *GEMMA_TAGS]]
    tokens += _byte_tokens()
    pieces = [text for text in dict.fromkeys(learnt) if text not in runs]
    tokens += [(text, NORMAL, -float(place)) for place, text in enumerate(pieces)]
    tokens += [(text, NORMAL, IS_NEVER) for text in characters]
    _write(path, "gemma3", "gemma", tokens, {"pad": 0, "eos": 1, "bos": 2, "unk": 3}, None)


def _learnt(tokenizer: Any) -> tuple[list[str], list[str]]:
    """Return a trained tokenizer's pieces by id, and its merges as "left right", best first."""
    import json

    model = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(model["vocab"], key=lambda text: model["vocab"][text])
    return pieces, [" ".join(merge) for merge in model["merges"]]


def _write(
    path: Path, architecture: str, name: str, tokens: list[Token], ids: dict[str, int], merges: list[str] | None
) -> None:
    """Write a GGUF without tensors.

    Args:
        path: of the file.
        architecture: llama.cpp's.
        name: `general.name`.
        tokens: by id.
        ids: of the special tokens, by what gguf's writer calls them.
        merges: of byte-level BPE; None for SentencePiece's, which goes by scores.
    """
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(name)
    writer.add_block_count(1)
    writer.add_context_length(4096)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(512)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(64)
    writer.add_tokenizer_model("llama" if merges is None else "gpt2")
    writer.add_tokenizer_pre("default" if merges is None else name)
    writer.add_token_list([text for text, _, _ in tokens])
    writer.add_token_types([kind for _, kind, _ in tokens])
    if merges is None:
        writer.add_token_scores([score for _, _, score in tokens])
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(architecture != "gemma3")
    else:
        writer.add_token_merges(merges)
    for key, number in ids.items():
        getattr(writer, f"add_{key}_token_id")(number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
