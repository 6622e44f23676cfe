"""One reply being made: which tokens must be evaluated next, and what the model's logits then decide.

Every engine's decoding loop. It knows no engine: an engine evaluates `pending` and `draft`, and says which tokens are
likeliest after them. Greedy; tokens that the grammar forces are never asked for, and draft tokens (speculative
decoding) only stay if the model says them itself.

What an overruled token is, is said and counted here alone (`Completion.overruled_tokens`); the agent carries out no
call of a reply that has one. Wherever the model is asked, what it wants is the likeliest of all tokens (of equals the
one with the lowest id), and it is overruled

- where the grammar leaves a choice: if the grammar forbids that token, the end of the turn included;
- where the grammar forces text: if that token is other text than what is forced from there on, up to the next choice.
  The same text in other pieces is no other text; a marker or an end-of-turn token is no text but itself.

What thoughts are given of a site and its state (grammar.Known) overrules nothing, where it leaves a choice or none.

Not asked, so never counted: what is forced after the last choice, with which a reply ends or is cut. How many tokens
are evaluated at once, where a prompt was resumed and what was drafted change no count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from devices.errors import UnavailableError
from edge_agent.engine.engine import Completion, Request, StopReason, common_length
from edge_agent.grammar.token_mask import Matcher

GRAM = 3  # tokens that must have been said before in the same order, for what followed them to be drafted
LONGEST_DRAFT = 16
REMEMBERED_GRAMS = 20_000  # of earlier replies; a few megabytes


class NextToken(Protocol):
    """What a model says of the token after one of pending and draft, by its index."""

    def likeliest(self, index: int, among: NDArray[np.intp] | None = None) -> int:
        """Return the likeliest token of all, or of some: ids in rising order. Of equally likely ones the first."""
        ...

    def log_probability(self, index: int, token: int) -> float:
        """Return the natural logarithm of a token's probability among all."""
        ...


class DecodingLoop:
    """A reply from its prompt to its end.

    Attributes:
        pending: tokens to evaluate next, in order.
        first_wanted: after which of them, and all later ones, the likeliest token is wanted.
        draft: proposed tokens to evaluate after them.
        stop_reason: why it ended; None while it goes on.
    """

    def __init__(
        self,
        request: Request,
        prompt: Sequence[int],
        reused: int,
        matcher: Matcher,
        draft_tokens: int = 0,
        ngram_cache: NgramCache | None = None,
    ) -> None:
        """Begin.

        Args:
            request: what to answer.
            prompt: its tokens.
            reused: how many of them need not be evaluated; not the last one.
            matcher: at the start of the reply.
            draft_tokens: longest draft.
            ngram_cache: drafts are made from the replies in it too, and this one is added.

        Raises:
            UnavailableError: the grammar failed.
        """
        assert reused < len(prompt)
        self.request, self._prompt, self._reused, self._matcher = request, list(prompt), reused, matcher
        self._started_s = time.monotonic()
        limit_s = request.limits.timeout_s
        self._deadline_s = None if limit_s is None else self._started_s + limit_s
        self.stop_reason: StopReason | None = None
        self._reply: list[int] = []
        self._cited: set[int] = set()  # places in the reply
        self._log_probabilities: list[float] = []
        self._forced = self._overruled = self._steps = 0
        self._first_logits_s: float | None = None
        self._ended_s = 0.0
        self._drafter = _NgramDrafter(self._prompt, draft_tokens, ngram_cache or NgramCache()) if draft_tokens else None
        self.pending: list[int] = self._prompt[reused:] + self._take_forced()
        self.first_wanted = len(self._prompt) - reused - 1
        self.draft: list[int] = self._propose()

    def is_late(self) -> bool:
        """Return whether its time is up."""
        return self._deadline_s is not None and time.monotonic() >= self._deadline_s

    def end(self, stop_reason: StopReason) -> None:
        """End it."""
        self.stop_reason, self._ended_s = stop_reason, time.monotonic()
        if self._drafter:
            self._drafter.note(self._reply)

    def take(self, count: int, model: NextToken) -> int:
        """Note that so many of pending and draft were evaluated; if those are all pending ones, go on with the reply.

        Args:
            count: how many.
            model: is asked about those that were evaluated, from `first_wanted` on.

        Returns:
            How many of them are part of the text; the others must be forgotten.

        Raises:
            UnavailableError: the grammar failed.
        """
        for index in range(self.first_wanted, min(count, len(self.pending) - 1)):
            self._compare(model.likeliest(index), self.pending[index + 1 :], index + 1 - len(self.pending))
        if count < len(self.pending):
            self.pending, self.first_wanted = self.pending[count:], max(0, self.first_wanted - count)
            return count
        return self._decide(self.draft[: count - len(self.pending)], model)

    def _decide(self, draft: list[int], model: NextToken) -> int:
        """Choose tokens for as long as the model says what was drafted; return how many of those evaluated stay."""
        self._steps += 1
        self._first_logits_s = self._first_logits_s or time.monotonic()
        known, at = self.pending + draft, len(self.pending) - 1  # at: the last token that is part of the text
        while True:
            token = self._choose(at, model)
            self._log_probabilities.append(model.log_probability(at, token))
            if not self._matcher.accept(token):
                self.end("end_of_turn")
                return at + 1
            self._reply.append(token)
            said = [token, *self._take_forced()]
            same = common_length(said, known[at + 1 :])
            if self.stop_reason is not None:  # what was forced after the last choice is not asked about, drafted or not
                return at + 1 + same
            for index in range(1, min(same + 1, len(said))):
                self._compare(model.likeliest(at + index), said[index:], index - len(said))
            at += same
            if same < len(said):
                self.pending, self.first_wanted = said[same:], 0
                self.draft = self._propose()
                return at + 1

    def text(self, text_of: Callable[[list[int]], str]) -> str:
        """Return the reply so far; `text_of` gives the text of tokens."""
        return text_of(self._reply)

    def completion(self, text_of: Callable[[list[int]], str]) -> Completion:
        """Return what came of it; `text_of` gives the text of tokens."""
        assert self.stop_reason is not None
        first_logits_s = self._first_logits_s or self._ended_s
        return Completion(
            text=text_of(self._reply),
            token_ids=tuple(self._reply),
            stop_reason=self.stop_reason,
            prompt_tokens=len(self._prompt),
            reused_tokens=self._reused,
            model_steps=self._steps,
            forced_tokens=self._forced,
            overruled_tokens=self._overruled,
            log_probabilities=tuple(self._log_probabilities),
            prefill_s=first_logits_s - self._started_s,
            decode_s=self._ended_s - first_logits_s,
        )

    def _take_forced(self) -> list[int]:
        """Take and return what the grammar forces next, as far as the limit goes; end where one of the two says so."""
        room, forced = self.request.limits.reply_tokens - len(self._reply), self._matcher.take_forced()
        if self._matcher.is_over and len(forced) <= room:
            self.end("end_of_turn")
        elif len(forced) >= room:
            self.end("length")
        self._forced += len(forced[:room])
        self._cited.update(len(self._reply) + place for place in self._matcher.cited)
        self._reply += forced[:room]
        return forced[:room]

    def _choose(self, at: int, model: NextToken) -> int:
        """Return the likeliest token that may come; count it if the model wanted another one."""
        wanted = model.likeliest(at)
        if self._matcher.allows(wanted):
            return wanted
        self._overruled += not self._matcher.is_narrowed
        allowed = self._matcher.allowed()
        if not allowed.size:
            raise UnavailableError("the grammar allows no token here")
        return model.likeliest(at, allowed)

    def _compare(self, wanted: int, forced: list[int], from_end: int) -> None:
        """Count what the model wanted where a stretch is forced, if it is other text; `from_end` tells its place."""
        if len(self._reply) + from_end not in self._cited:
            self._overruled += self._matcher.vocabulary.spells_other(wanted, forced)

    def _propose(self) -> list[int]:
        return self._drafter.draft(self._reply) if self._drafter and self.stop_reason is None else []


class NgramCache:
    """What came after each few tokens when they were last said in a reply."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], tuple[int, ...]] = {}

    def note(self, reply: Sequence[int]) -> None:
        """Remember a reply, and forget what was said longest ago."""
        for at in range(GRAM, len(reply)):
            gram = tuple(reply[at - GRAM : at])
            self._after.pop(gram, None)  # so that it becomes the newest
            self._after[gram] = tuple(reply[at : at + LONGEST_DRAFT])
        while len(self._after) > REMEMBERED_GRAMS:
            del self._after[next(iter(self._after))]

    def after(self, gram: tuple[int, ...]) -> list[int]:
        """Return what was said after these tokens; nothing if they were not said."""
        return list(self._after.get(gram, ()))


class _NgramDrafter:
    """Drafts how a reply goes on: as an earlier reply did after the same few tokens, or else this prompt or reply."""

    def __init__(self, prompt: Sequence[int], count: int, ngram_cache: NgramCache) -> None:
        self._tokens, self._count, self._ngram_cache = list(prompt), count, ngram_cache
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed, self._prompt_tokens = GRAM, len(prompt)

    def draft(self, reply: Sequence[int]) -> list[int]:
        """Return up to `count` tokens."""
        self._tokens += reply[len(self._tokens) - self._prompt_tokens :]
        while self._indexed < len(self._tokens):  # all but the last few tokens, of which nothing follows yet
            self._after[tuple(self._tokens[self._indexed - GRAM : self._indexed])] = self._indexed
            self._indexed += 1
        gram = tuple(self._tokens[-GRAM:])
        if draft := self._ngram_cache.after(gram):
            return draft[: self._count]
        place = self._after.get(gram)
        return [] if place is None else self._tokens[place : place + self._count]

    def note(self, reply: Sequence[int]) -> None:
        """Remember how the reply went, for later ones."""
        self._ngram_cache.note([*self._tokens[: self._prompt_tokens][-GRAM:], *reply])
