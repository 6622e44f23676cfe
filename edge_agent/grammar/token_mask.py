"""Which tokens may come next: the one place that knows llguidance's matcher, shared by both engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from devices.errors import UnavailableError
from edge_agent.grammar.grammar import NOTHING, Grammar
from edge_agent.grammar.thought_guide import ThoughtGuide
from edge_agent.wire.markers import END_THINK, MARKERS

# Classes of plain text whose masks llguidance computes once a vocabulary; thoughts and answers fall into them.
# Source: llguidance 1.9, docs/optimizations.md, "Slicer optimization".
# 2 cores, Llama 3's vocabulary, one call: 4-12 ms of masks with these, 35-45 ms with llguidance's own, 70 ms with none.
TEXT_SLICES = [r"[^<>\x00-\x1f\x7f]{1,10}", r"[^<>\x00-\x1f\x7f]{1,30}", r"[^<>\x00-\x1f\x7f]+"]
COMPILED_GRAMMARS = 8


@dataclass(frozen=True)
class Vocabulary:
    """What a matcher needs to know of a model's tokens.

    Attributes:
        tokenizer: llguidance's, whose end-of-sequence token is the template's end-of-turn token.
        size: how many logits the model gives.
    """

    tokenizer: LLTokenizer
    size: int
    _compiled: dict[str, LLMatcher] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def marker_tokens(self) -> frozenset[str]:
        """Return those of the wire format's markers that are single tokens."""
        found = set()
        for marker in MARKERS:
            ids = self.tokenizer.tokenize_str(marker, parse_special=True)
            if len(ids) == 1 and self.tokenizer.is_special_token(ids[0]):
                found.add(marker)
        return frozenset(found)

    def compile(self, grammar: Grammar) -> LLMatcher:
        """Return a new matcher; the last few grammars are kept compiled (a copy takes 0.1 ms, compiling 5-15 ms).

        Raises:
            UnavailableError: the grammar is wrong, or names a token that the vocabulary does not have.
        """
        if grammar.lark not in self._compiled:
            lark = grammar.for_vocabulary(self.marker_tokens).lark
            matcher = LLMatcher(self.tokenizer, LLMatcher.grammar_from_lark(lark), log_level=0)
            _require_no_error(matcher)
            while len(self._compiled) >= COMPILED_GRAMMARS:
                self._compiled.pop(next(iter(self._compiled)))
            self._compiled[grammar.lark] = matcher
        return self._compiled[grammar.lark].deep_copy()

    def would_give(self, grammar: Grammar, token_ids: Sequence[int]) -> bool:
        """Return whether a greedy reply without a grammar is just what the same model gives with it.

        Every token must be allowed where it stands, every forced stretch be spelled alike, and the end-of-turn
        token be allowed after the last one: then masking would have changed no decision.

        Args:
            grammar: what the reply is held against.
            token_ids: a reply that ended with the end-of-turn token, without that token.
        """
        matcher, at = Matcher(self, grammar), 0
        while True:
            forced = matcher.take_forced()
            if list(token_ids[at : at + len(forced)]) != forced:
                return False
            at += len(forced)
            if matcher.is_over:
                return at == len(token_ids)
            token = self.tokenizer.eos_token if at == len(token_ids) else token_ids[at]
            if token not in matcher.allowed():
                return False
            if at == len(token_ids):
                return True
            matcher.accept(token)
            at += 1

    def spells_other(self, token: int, forced: Sequence[int]) -> bool:
        """Return whether a token is other text than forced tokens begin with, and not just other pieces of the same.

        Where it goes on beyond them, only what they cover is compared.
        """
        if token == forced[0]:
            return False
        if self.tokenizer.is_special_token(token) or self.tokenizer.is_special_token(forced[0]):
            return True
        text, wanted = self.tokenizer.decode_bytes(list(forced)), self.tokenizer.decode_bytes([token])
        return not (text.startswith(wanted) or wanted.startswith(text))

    def text_of(self, token_ids: list[int]) -> str:
        """Return the text of tokens, markers included; bytes that are not UTF-8 (a reply cut short) are replaced."""
        return self.tokenizer.decode_bytes(token_ids).decode("utf-8", errors="replace")


class Matcher:
    """Follows one reply token by token; without a grammar every token may come."""

    def __init__(self, vocabulary: Vocabulary, grammar: Grammar | None) -> None:
        """Raises UnavailableError if the grammar does not fit the vocabulary."""
        self.vocabulary = vocabulary
        self._matcher = vocabulary.compile(grammar) if grammar is not None else None
        tokens = max(vocabulary.size, vocabulary.tokenizer.vocab_size)
        self.mask: NDArray[np.int32] = np.full((tokens + 31) // 32, -1, dtype=np.int32)
        self.is_over = False
        known = grammar.known if grammar is not None else NOTHING
        self._guide = ThoughtGuide(known) if known != NOTHING else None
        self.is_narrowed = False  # whether what is known leaves less than the grammar does
        self.cited: list[int] = []  # places, in the stretch that was taken last, of tokens that what is known left
        self._thought = ""
        self._cited: list[int] = []  # tokens that must come next, by what is known
        self._choices: tuple[str, ...] = ()  # one of them must come next
        self._is_answering = False  # whether what comes after a thought is cited, or one of several
        self._is_complete = False  # whether nothing comes after what is cited

    def take_forced(self) -> list[int]:
        """Accept and return the tokens that must come next; sets `mask` for the decision after them.

        The end-of-turn token is never returned: where it must come, `is_over` becomes true.
        """
        if self._matcher is None:
            return []
        taken: list[int] = []
        self.cited = []
        while not self.is_over:
            if self._is_complete and not self._cited:
                self.is_over = True
                break
            is_known, forced = bool(self._cited), self._cited or self._matcher.compute_ff_tokens()
            self._cited = []
            if not forced:
                self._fill_mask()
                if self._matcher.is_stopped() or int(np.bitwise_count(self.mask).sum()) != 1:
                    self.is_over = self._matcher.is_stopped()
                    break
                is_known, forced = self.is_narrowed, [int(self.allowed()[0])]
            for token in forced:
                if not self.accept(token):
                    break
                self.cited += [len(taken)] if is_known else []
                taken.append(token)
        _require_no_error(self._matcher)
        return taken

    def allowed(self) -> NDArray[np.intp]:
        """Return the ids of the tokens that may come next, int64 (count,), in rising order."""
        return np.flatnonzero(np.unpackbits(self.mask.view(np.uint8), bitorder="little")[: self.vocabulary.size])

    def allows(self, token: int) -> bool:
        """Return whether a token may come next."""
        return self._matcher is None or bool(self.mask[token // 32] >> (token % 32) & 1)

    def accept(self, token: int) -> bool:
        """Accept a token; return False if it ends the turn. Raises UnavailableError if the grammar forbids it."""
        if self._matcher is not None:
            self._matcher.consume_token(token)
            _require_no_error(self._matcher)
        if self._guide:
            self._follow(token)
        self.is_over = token == self.vocabulary.tokenizer.eos_token
        return not self.is_over

    def _follow(self, token: int) -> None:
        """Follow the thought; where it has come to what is known, that must come next, or one of what is."""
        assert self._guide
        text = self.vocabulary.text_of([token])
        self._thought += text
        if END_THINK in self._thought and not self._is_answering:
            self._end_thought()
            return
        left = tuple(one[len(text) :] for one in self._choices if one.startswith(text))
        if self._is_answering:
            self._go_on_with(left)
            return
        self._choices = () if "" in left else left  # a name may go on: "light" where there is "light_2"
        if not self._choices and (forced := self._guide.forced(self._thought)):
            self._cited = self._tokens_of(forced)
        elif not self._choices:
            self._choices = self._guide.choices(self._thought)

    def _end_thought(self) -> None:
        """Cite the calls that a finished thought has named, or its answer; if it has several, one is decided on."""
        assert self._guide
        self._is_answering = True
        calls = self._guide.calls(self._thought)
        self._go_on_with((calls,) if calls else self._guide.answers(self._thought))

    def _go_on_with(self, texts: Sequence[str]) -> None:
        """Have one of some texts come next, and end the reply; if there are none, anything may come."""
        if len(texts) > 1 and "" not in texts:
            self._choices = tuple(texts)
            return
        self._guide, self._choices = None, ()
        self._cited = self._tokens_of(texts[0]) if len(texts) == 1 and texts[0] else []
        self._is_complete = bool(self._cited) or "" in texts

    def _tokens_of(self, text: str) -> list[int]:
        """Return the tokens of a text that must come next; none if the grammar forbids one of them."""
        assert self._matcher
        tokens = list(self.vocabulary.tokenizer.tokenize_str(text, parse_special=True))
        return tokens if self._matcher.validate_tokens(tokens) == len(tokens) else []

    def _fill_mask(self) -> None:
        assert self._matcher is not None
        self._matcher.unsafe_compute_mask_ptr(self.mask.ctypes.data, self.mask.nbytes)
        _require_no_error(self._matcher)
        self.is_narrowed = False
        if self._choices:
            self._narrow(self._bits(self._choices))
        elif self._guide and (forbidden := self._guide.forbidden(self._thought)):
            self._narrow(~self._bits(forbidden))

    def _bits(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Return the bits of the tokens that texts begin with."""
        bits = np.zeros_like(self.mask)
        for token in {self.vocabulary.tokenizer.tokenize_str(text)[0] for text in texts}:
            bits[token // 32] |= np.uint32(1 << token % 32).astype(np.int32)
        return bits

    def _narrow(self, bits: NDArray[np.int32]) -> None:
        """Leave only some tokens, unless the grammar has none of them."""
        if (narrowed := self.mask & bits).any():
            self.mask, self.is_narrowed = narrowed, True


def _require_no_error(matcher: LLMatcher) -> None:
    if matcher.is_error():
        first_line = matcher.get_error().strip().splitlines()[0]
        raise UnavailableError(f"the grammar failed: {first_line}", hint="no reply is made without its grammar")
