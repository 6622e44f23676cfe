"""A GGUF model's tokens, as the grammar needs them."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
from llguidance import LLTokenizer

from devices.errors import UsageError
from edge_agent.matching import TEXT_SLICES, Vocabulary

LONGEST_PIECE_BYTES = 1024
SPECIAL_MARK = b"\xff"  # llguidance's toktrie, TokTrie::SPECIAL_TOKEN_MARKER


def read_vocabulary(vocab: Any, token_table: list[bytes] | None = None) -> tuple[Vocabulary, list[bytes]]:
    """Return a model's vocabulary and each token's bytes; the end of a turn is its EOT, or its EOS if it has none.

    Args:
        vocab: a llama_vocab pointer, valid for as long as the result is used.
        token_table: each token's bytes, if they are known from before.

    Raises:
        UsageError: it has neither EOT nor EOS.
    """
    size = llama_cpp.llama_vocab_n_tokens(vocab)
    end_of_turn = llama_cpp.llama_vocab_eot(vocab)
    if end_of_turn < 0:
        end_of_turn = llama_cpp.llama_vocab_eos(vocab)
    if end_of_turn < 0:
        raise UsageError("the model's vocabulary has no end-of-turn token")
    token_table = token_table or _token_table(vocab, size)
    tokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]  # as llguidance.llamacpp does
        tokens=token_table,
        vocab_ptr=vocab,
        tokenize_fptr=ctypes.cast(llama_cpp.llama_cpp._lib.llama_tokenize, ctypes.c_void_p).value,
        eos_token=end_of_turn,
        slices=TEXT_SLICES,
    )
    return Vocabulary(tokenizer, size), token_table


def _token_table(vocab: Any, size: int) -> list[bytes]:
    """Return every token's bytes, special ones after llguidance's mark for them."""
    table, buffer = [], ctypes.create_string_buffer(LONGEST_PIECE_BYTES)
    for token in range(size):
        count = llama_cpp.llama_token_to_piece(vocab, token, buffer, LONGEST_PIECE_BYTES, 0, True)
        if count < 0:
            raise UsageError(f"token {token} has {-count} bytes, over the limit of {LONGEST_PIECE_BYTES}")
        piece = buffer.raw[:count]
        attributes = llama_cpp.llama_vocab_get_attr(vocab, token)
        is_marker = attributes & llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED and piece[:1] + piece[-1:] == b"<>"
        is_special = is_marker or attributes & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
        table.append(SPECIAL_MARK + piece if is_special else piece)
    return table
