"""A GGUF model's tokens, as the grammar needs them; made from a cached table, they need not wait for the model."""

from __future__ import annotations

import ctypes
import json
import struct
import threading
from dataclasses import dataclass
from typing import Any

import llama_cpp
from llguidance import LLTokenizer

from devices.errors import UsageError
from edge_agent.grammar.token_mask import TEXT_SLICES, Vocabulary

LONGEST_PIECE_BYTES = 1024
SPECIAL_MARK = b"\xff"  # llguidance's toktrie, TokTrie::SPECIAL_TOKEN_MARKER
# llama.h: int32_t llama_tokenize(vocab, text, text_len, tokens, n_tokens_max, add_special, parse_special)
_TOKENIZE = ctypes.CFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int32,
    ctypes.POINTER(ctypes.c_int32),
    ctypes.c_int32,
    ctypes.c_bool,
    ctypes.c_bool,
)


@dataclass(frozen=True)
class TokenTable:
    """What llguidance asks about a vocabulary, to be cached for the next start.

    Attributes:
        words: each token's bytes, special ones after SPECIAL_MARK.
        end_of_turn: the token.
        probes: how the texts are tokenized that llguidance tries while it sets itself up.
    """

    words: list[bytes]
    end_of_turn: int
    probes: dict[bytes, list[int]]

    def pack(self) -> bytes:
        """Return it as bytes: how long a JSON head is, the head, each word's length, the words."""
        probes = {text.hex(): ids for text, ids in self.probes.items()}
        head = json.dumps({"words": len(self.words), "end_of_turn": self.end_of_turn, "probes": probes}).encode()
        lengths = struct.pack(f"<{len(self.words)}H", *map(len, self.words))
        return struct.pack("<I", len(head)) + head + lengths + b"".join(self.words)

    @classmethod
    def unpack(cls, data: memoryview) -> TokenTable:
        """Return what `pack` packed."""
        at = 4 + struct.unpack_from("<I", data)[0]
        head = json.loads(bytes(data[4:at]))
        lengths = struct.unpack_from(f"<{head['words']}H", data, at)
        whole, at, words = bytes(data[at + 2 * len(lengths) :]), 0, []
        for length in lengths:
            words.append(whole[at : at + length])
            at += length
        return cls(words, head["end_of_turn"], {bytes.fromhex(text): ids for text, ids in head["probes"].items()})


def read_table(vocab: Any) -> TokenTable:
    """Return a llama_vocab's table, without probes; the end of a turn is its EOT, or its EOS if it has none.

    Raises:
        UsageError: it has neither.
    """
    end_of_turn = llama_cpp.llama_vocab_eot(vocab)
    if end_of_turn < 0:
        end_of_turn = llama_cpp.llama_vocab_eos(vocab)
    if end_of_turn < 0:
        raise UsageError("the model's vocabulary has no end-of-turn token")
    words, buffer = [], ctypes.create_string_buffer(LONGEST_PIECE_BYTES)
    for token in range(llama_cpp.llama_vocab_n_tokens(vocab)):
        count = llama_cpp.llama_token_to_piece(vocab, token, buffer, LONGEST_PIECE_BYTES, 0, True)
        if count < 0:
            raise UsageError(f"token {token} has {-count} bytes, over the limit of {LONGEST_PIECE_BYTES}")
        piece = buffer.raw[:count]
        attributes = llama_cpp.llama_vocab_get_attr(vocab, token)
        is_marker = attributes & llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED and piece[:1] + piece[-1:] == b"<>"
        is_special = is_marker or attributes & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
        words.append(SPECIAL_MARK + piece if is_special else piece)
    return TokenTable(words, end_of_turn, {})


class GrammarVocabulary:
    """Makes the grammar's vocabulary, before or after llama.cpp has loaded its own, and stands between the two.

    It must live as long as what it made.
    """

    def __init__(self) -> None:
        self._vocab: Any = None
        self._is_loaded = threading.Event()
        self._known: dict[bytes, list[int]] = {}
        self._asked: dict[bytes, list[int]] | None = None  # what is asked while the vocabulary is made
        self._callback = _TOKENIZE(self._tokenize)

    def loaded(self, vocab: Any) -> None:
        """Say what texts are tokenized with from now on: a llama_vocab pointer; None if there is none (any more)."""
        self._vocab = vocab
        self._is_loaded.set()

    def make(self, table: TokenTable | None = None) -> tuple[Vocabulary, TokenTable]:
        """Return the vocabulary and the table to cache.

        Args:
            table: as it was cached; without one, `loaded` comes first.

        Raises:
            UsageError: as `read_table`.
        """
        table = table or read_table(self._vocab)
        self._known, self._asked = table.probes, {}
        tokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]  # as llguidance.llamacpp does
            tokens=table.words,
            vocab_ptr=1,  # the callback has its own; null is refused
            tokenize_fptr=ctypes.cast(self._callback, ctypes.c_void_p).value,
            eos_token=table.end_of_turn,
            slices=TEXT_SLICES,
        )
        asked, self._asked = self._asked, None
        return Vocabulary(tokenizer, len(table.words)), TokenTable(table.words, table.end_of_turn, asked)

    def _tokenize(
        self, _: int, text: int, length: int, found: Any, room: int, adds_special: bool, parses_special: bool
    ) -> int:
        raw = ctypes.string_at(text, length)
        is_plain = not (adds_special or parses_special)
        ids = self._known.get(raw) if is_plain and not self._is_loaded.is_set() else None
        if ids is not None and len(ids) <= room:
            for index, token in enumerate(ids):
                found[index] = token
            count = len(ids)
        else:
            self._is_loaded.wait()
            if self._vocab is None:
                return 0
            count = llama_cpp.llama_tokenize(self._vocab, raw, length, found, room, adds_special, parses_special)
        if self._asked is not None and is_plain and count >= 0:
            self._asked[raw] = list(found[:count])
        return int(count)
