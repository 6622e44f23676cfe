"""One reply being made: which tokens must be evaluated next, and what the model's logits then decide.

Knows no engine: an engine evaluates `pending` and `draft`, and hands the logits back. Greedy; tokens that the grammar
forces are never asked for, and guessed ones (the draft) only stay if the model says them itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_agent.engine import Completion, Request, StopReason, common_length
from edge_agent.matching import Matcher

Logits = NDArray[np.float32]
GRAM = 3  # tokens that must have been said before in the same order, for what followed them to be guessed
LONGEST_GUESS = 16
REMEMBERED_GRAMS = 20_000  # of earlier replies; a few megabytes


class ReplyRun:
    """A reply from its prompt to its end.

    Attributes:
        pending: tokens to evaluate next, in order.
        draft: guessed tokens to evaluate after them.
        stop_reason: why it ended; None while it goes on.
    """

    def __init__(
        self,
        request: Request,
        prompt: Sequence[int],
        reused: int,
        matcher: Matcher,
        draft_tokens: int,
        earlier: EarlierReplies,
    ) -> None:
        """Begin.

        Args:
            request: what to answer.
            prompt: its tokens.
            reused: how many of them need not be evaluated.
            matcher: at the start of the reply.
            draft_tokens: how many tokens are guessed at once.
            earlier: guesses are made from these too, and this reply becomes one of them.
        """
        self.request, self._prompt, self._reused, self._matcher = request, list(prompt), reused, matcher
        self._started_s = time.monotonic()
        limit_s = request.limits.timeout_s
        self._deadline_s = None if limit_s is None else self._started_s + limit_s
        self.pending: list[int] = self._prompt[reused:]
        self.draft: list[int] = []
        self.stop_reason: StopReason | None = None
        self._reply: list[int] = []
        self._taken = 0  # of pending, at its end, forced by the grammar
        self._forced = self._overruled = self._steps = 0
        self._first_logits_s: float | None = None
        self._ended_s = 0.0
        self._earlier = earlier
        self._guesser = _Guesser(self._prompt, draft_tokens, self._earlier) if draft_tokens else None

    @property
    def first_wanted(self) -> int:
        """From which token of pending and draft on the logits are needed."""
        return len(self.pending) - 1 - self._taken

    def advance(self) -> bool:
        """Take what the grammar forces; return whether the model must be asked, which it need not once it has ended."""
        if self.stop_reason is not None:
            return False
        taken = self._matcher.take_forced()
        self._note_forced(taken)
        self._taken += len(taken)
        self.pending += taken
        if self._is_ended():
            return False
        if self._guesser:
            self.draft = self._guesser.guess(self._reply)
        return True

    def is_late(self) -> bool:
        """Return whether its time is up."""
        return self._deadline_s is not None and time.monotonic() >= self._deadline_s

    def end(self, stop_reason: StopReason) -> None:
        """End it."""
        self.stop_reason, self._ended_s = stop_reason, time.monotonic()
        if self._guesser:
            self._earlier.note([*self._prompt[-GRAM:], *self._reply])

    def take(self, count: int, logits: Callable[[int], Logits]) -> int:
        """Note that so many of pending and draft were evaluated, and decide if that was all.

        Args:
            count: how many.
            logits: as `decide`, for those that were evaluated.

        Returns:
            How many of them are part of the text; the others must be forgotten.
        """
        self.draft = self.draft[: max(0, count - len(self.pending))]
        if count >= len(self.pending):
            return self.decide(logits)
        for index in range(max(0, self.first_wanted), count):  # of the forced ones, some are still to come
            self._compare(logits(index), self.pending[index + 1])
        self.pending = self.pending[count:]
        self._taken = min(self._taken, len(self.pending) - 1)
        return count

    def decide(self, logits: Callable[[int], Logits]) -> int:
        """Go on by the logits of the tokens that were evaluated, and set what is pending next.

        Args:
            logits: gives those after a token of pending and draft, by its index from `first_wanted` on; float32
                (vocabulary,).

        Returns:
            How many of pending and draft are part of the text; the others must be forgotten.
        """
        self._steps += 1
        self._first_logits_s = self._first_logits_s or time.monotonic()
        known = self.pending + self.draft
        for index in range(self.first_wanted, len(self.pending) - 1):
            self._compare(logits(index), known[index + 1])
        at = len(self.pending) - 1  # the last token that is part of the text
        self.pending, self.draft, self._taken = [], [], 0
        while True:
            token, is_overruled = self._matcher.best(logits(at))
            self._overruled += is_overruled
            if not self._matcher.accept(token):
                self.end("end_of_turn")
                return at + 1
            self._reply.append(token)
            if known[at + 1 : at + 2] != [token]:
                self.pending = [token]
                return at + 1
            at += 1  # the model said what was guessed
            taken = self._matcher.take_forced()
            self._note_forced(taken)
            if self._is_ended():  # what was forced after the last choice is not asked about, guessed or not
                return at + 1
            same = common_length(taken, known[at + 1 :])
            for step, forced in enumerate(taken[:same]):
                self._compare(logits(at + step), forced)
            at += same
            if same < len(taken):
                self._compare(logits(at), taken[same])
                self.pending, self._taken = taken[same:], len(taken) - same - 1
                return at + 1

    def completion(self, text_of: Callable[[list[int]], str]) -> Completion:
        """Return what came of it; `text_of` gives the text of tokens."""
        assert self.stop_reason is not None
        reply = self._reply[: self.request.limits.reply_tokens]
        first_logits_s = self._first_logits_s or self._ended_s
        return Completion(
            text=text_of(reply),
            token_ids=tuple(reply),
            stop_reason=self.stop_reason,
            prompt_tokens=len(self._prompt),
            reused_tokens=self._reused,
            model_steps=self._steps,
            forced_tokens=self._forced,
            overruled_tokens=self._overruled,
            prefill_s=first_logits_s - self._started_s,
            decode_s=self._ended_s - first_logits_s,
        )

    def _note_forced(self, taken: list[int]) -> None:
        self._forced += len(taken)
        self._reply += taken

    def _is_ended(self) -> bool:
        if self._matcher.is_over:
            self.end("end_of_turn")
        elif len(self._reply) >= self.request.limits.reply_tokens:
            self.end("length")
        return self.stop_reason is not None

    def _compare(self, logits: Logits, forced: int) -> None:
        """Count a forced token if the model would have said something else."""
        self._overruled += self._matcher.vocabulary.spells_other(int(logits.argmax()), forced)


class EarlierReplies:
    """What came after each few tokens when they were last said in a reply."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], tuple[int, ...]] = {}

    def note(self, reply: Sequence[int]) -> None:
        """Remember a reply, and forget what was said longest ago."""
        for at in range(GRAM, len(reply)):
            gram = tuple(reply[at - GRAM : at])
            self._after.pop(gram, None)  # so that it becomes the newest
            self._after[gram] = tuple(reply[at : at + LONGEST_GUESS])
        while len(self._after) > REMEMBERED_GRAMS:
            del self._after[next(iter(self._after))]

    def after(self, gram: tuple[int, ...]) -> list[int]:
        """Return what was said after these tokens; nothing if they were not said."""
        return list(self._after.get(gram, ()))


class _Guesser:
    """Guesses how a reply goes on: as an earlier reply did after the same few tokens, or else this prompt or reply."""

    def __init__(self, prompt: Sequence[int], count: int, earlier: EarlierReplies) -> None:
        self._tokens, self._count, self._earlier = list(prompt), count, earlier
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed, self._prompt_tokens = GRAM, len(prompt)

    def guess(self, reply: Sequence[int]) -> list[int]:
        """Return up to `count` tokens."""
        self._tokens += reply[len(self._tokens) - self._prompt_tokens :]
        while self._indexed < len(self._tokens):  # all but the last few tokens, of which nothing follows yet
            self._after[tuple(self._tokens[self._indexed - GRAM : self._indexed])] = self._indexed
            self._indexed += 1
        gram = tuple(self._tokens[-GRAM:])
        if guess := self._earlier.after(gram):
            return guess[: self._count]
        place = self._after.get(gram)
        return [] if place is None else self._tokens[place : place + self._count]
