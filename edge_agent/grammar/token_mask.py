"""Which tokens may come next: the one place that knows llguidance's matcher, shared by both engines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from devices.errors import UnavailableError
from devices.site.nearest import nearest
from edge_agent.grammar.grammar import THOUGHT_CHARACTERS, Grammar
from edge_agent.wire.markers import END_THINK, MARKERS, THINK

# Classes of plain text whose masks llguidance computes once a vocabulary; thoughts and answers fall into them.
# Source: llguidance 1.9, docs/optimizations.md, "Slicer optimization".
# 2 cores, Llama 3's vocabulary, one call: 4-12 ms of masks with these, 35-45 ms with llguidance's own, 70 ms with none.
TEXT_SLICES = [r"[^<>\x00-\x1f\x7f]{1,10}", r"[^<>\x00-\x1f\x7f]{1,30}", r"[^<>\x00-\x1f\x7f]+"]
COMPILED_GRAMMARS = 8
_LAST_NAME = re.compile(r"(\w*):")
_WISHED = re.compile(rf"{THINK} ([^:]+): .*\bis (\w+):.*, (\w+) (\w+)=$")
_HANGS_ON = re.compile(rf"{THINK} (?:if|unless|only if|if or else): .*\bis (\w+):([^;]*), ([^,;:=]+):$")
_COMPARED = re.compile(r"(\w+) (above|below) (-?\d+(?:\.\d+)?)")
_BY = re.compile(r"(\d+(?:\.\d+)?) (more|less)")
_GIVEN = re.compile(r"\b(\w+)=(-?\d+(?:\.\d+)?), \1:$")


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
        self._facts = dict(grammar.facts) if grammar is not None else {}
        self._numbers = grammar.numbers if grammar is not None else ()
        self._truths = {(device, words): so for device, words, so in grammar.truths} if grammar is not None else {}
        self.cited_tokens = 0  # of the stretch that was taken last, how many at its start are cited
        self._thought = ""
        self._cited: list[int] = []  # tokens of a fact that must come next

    def take_forced(self) -> list[int]:
        """Accept and return the tokens that must come next; sets `mask` for the decision after them.

        The end-of-turn token is never returned: where it must come, `is_over` becomes true.
        """
        if self._matcher is None:
            return []
        taken: list[int] = []
        self.cited_tokens = len(self._cited)
        while not self.is_over:
            forced, self._cited = self._cited or self._matcher.compute_ff_tokens(), []
            if not forced:
                self._fill_mask()
                if self._matcher.is_stopped() or int(np.bitwise_count(self.mask).sum()) != 1:
                    self.is_over = self._matcher.is_stopped()
                    break
                forced = [int(self.allowed()[0])]
            for token in forced:
                if not self.accept(token):
                    break
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
        if self._facts or self._numbers or self._truths:
            self._cite(token)
        self.is_over = token == self.vocabulary.tokenizer.eos_token
        return not self.is_over

    def _cite(self, token: int) -> None:
        """Follow the thought; where it has come to a fact or a number of the state, that must come next."""
        self._thought += self.vocabulary.text_of([token])
        if END_THINK in self._thought:
            self._facts, self._numbers, self._truths = {}, (), {}
            return
        text = ""
        if self._thought.endswith(":"):
            text = self._facts.get(_LAST_NAME.findall(self._thought)[-1], "") or self._bounds() or self._truth()
        elif self._thought.endswith("="):
            text = self._wished_value()
        if text and len(self._thought) + len(text) <= THOUGHT_CHARACTERS:
            self._cited = list(self.vocabulary.tokenizer.tokenize_str(text))

    def _bounds(self) -> str:
        """Return the bounds of the argument that a thought has just given a value, and whether it is outside."""
        if (given := _GIVEN.search(self._thought)) is None:
            return ""
        named = re.findall(r"\w+", self._thought[: given.start()])[-1:]
        for one in self._numbers:
            if one.argument == given[1] and [one.tool] == named:
                value = float(given[2])
                return one.bounds + (", above." if value > one.maximum else ", below." if value < one.minimum else "")
        return ""

    def _truth(self) -> str:
        """Return whether what a condition hangs on is so, if a thought has come to that."""
        if (hangs := _HANGS_ON.search(self._thought)) is None:
            return ""
        device, facts, words = hangs.groups()
        if (compared := _COMPARED.fullmatch(words)) is None:
            so = self._truths.get((device, words), "")
        else:
            found = re.search(rf"\b{compared[1]}=(-?\d+(?:\.\d+)?)\b", facts)
            if found is None:
                return ""
            value, bound = float(found[1]), float(compared[3])
            so = "yes" if (value > bound if compared[2] == "above" else value < bound) else "no"
        return f" {so}" if so else ""

    def _wished_value(self) -> str:
        """Return the value of the argument that a thought comes to, if it is named by what is so now."""
        if (wish := _WISHED.search(self._thought)) is None:
            return ""
        words, device, tool, argument = wish.groups()
        one = next(
            (one for one in self._numbers if (one.device, one.tool, one.argument) == (device, tool, argument)), None
        )
        if one is None or one.now is None:
            return ""
        if by := _BY.fullmatch(words):
            wanted = one.now + float(by[1]) * (1 if by[2] == "more" else -1)
            return f"{nearest(wanted, one.minimum, one.maximum, one.step):g}"
        return dict(one.wished).get(words, "")

    def _fill_mask(self) -> None:
        assert self._matcher is not None
        self._matcher.unsafe_compute_mask_ptr(self.mask.ctypes.data, self.mask.nbytes)
        _require_no_error(self._matcher)


def _require_no_error(matcher: LLMatcher) -> None:
    if matcher.is_error():
        first_line = matcher.get_error().strip().splitlines()[0]
        raise UnavailableError(f"the grammar failed: {first_line}", hint="no reply is made without its grammar")
