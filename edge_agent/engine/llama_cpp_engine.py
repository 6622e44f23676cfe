"""The llama.cpp engine: greedy replies from a GGUF file. What it asks of llama.cpp itself is in llama_cpp_model.py.

What a prompt has in common with what was evaluated last is never evaluated again, and tokens that the grammar forces
are evaluated together with the next decision (decoding_loop.py). Several replies share the primed prefix and each step.

Does not guard against: a crash inside llama.cpp. Run the engine in a process of its own (process.py).
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from devices.errors import UnavailableError
from edge_agent.engine.autotune import USUAL, Tuning
from edge_agent.engine.decoding_loop import DecodingLoop, NextToken, NgramCache
from edge_agent.engine.engine import (
    CONTEXT_TOKENS,
    Completion,
    Limits,
    Request,
    common_length,
    peak_resident_bytes,
    require_room,
)
from edge_agent.engine.gguf_header import require_gguf
from edge_agent.engine.llama_cpp_model import LlamaModel
from edge_agent.engine.llama_cpp_vocabulary import GrammarVocabulary, TokenTable
from edge_agent.grammar.grammar import Grammar
from edge_agent.grammar.token_mask import Matcher

MOST_DROPPED_TOKENS = 8  # of a conversation that goes on: how a reply was said, and how it is put again
IDLE_PREFILL_TOKENS = 16  # evaluated at once while nobody waits, so that who comes then waits for no more


@dataclass
class _Sequence:
    """One of llama.cpp's sequences, and the tokens in its part of the KV cache, by position."""

    number: int
    evaluated: list[int]
    used: int = 0  # the larger, the later


@dataclass(frozen=True)
class _NextToken:
    """What a model says of the tokens after those of one sequence, from `start` of the last batch on."""

    model: LlamaModel
    start: int

    def likeliest(self, index: int, among: NDArray[np.intp] | None = None) -> int:
        logits = self.model.logits(self.start + index)
        return int(logits.argmax() if among is None else among[logits[among].argmax()])

    def log_probability(self, index: int, token: int) -> float:
        logits = self.model.logits(self.start + index)
        above = logits - logits[token]
        most = float(above.max())
        return -most - math.log(float(np.exp(above - most).sum()))


class LlamaEngine:
    """Greedy replies from a GGUF model on CPU or GPU. Not safe to use from two threads at once."""

    name = "llama.cpp"

    def __init__(
        self,
        model_path: Path,
        *,
        adapter: Path | None = None,
        context_tokens: int | None = None,
        gpu_layers: int = 0,
        tuning: Tuning = USUAL,
        sequences: int = 1,
        token_table: TokenTable | None = None,
    ) -> None:
        """Load a model.

        Args:
            model_path: a GGUF file.
            adapter: a LoRA adapter's GGUF file to apply to it.
            context_tokens: room for prompt and reply, at most the model's; None takes CONTEXT_TOKENS.
            gpu_layers: how many layers to put on the GPU; more than the model has puts all.
            tuning: how it computes.
            sequences: how many replies are made at once; each needs room of its own in memory.
            token_table: what the property of that name gave before, for a quicker start.

        Raises:
            BadGguf: the file's header is unsound.
            UsageError: no such file, one that llama.cpp cannot read, or an adapter of another model.
            UnavailableError: no memory for its context.
        """
        require_gguf(model_path)
        self._model, self._grammar_vocabulary = LlamaModel(), GrammarVocabulary()
        self._is_cancelled, self._tuning, self._ngram_cache, self._uses = False, tuning, NgramCache(), 0
        try:
            with ThreadPoolExecutor(1) as beside:  # llguidance holds Python's lock all the while, llama.cpp does not
                loading = beside.submit(self._load, model_path, gpu_layers)
                made = self._grammar_vocabulary.make(token_table) if token_table else None
            loading.result()
            self._vocabulary, self.token_table = made or self._grammar_vocabulary.make()
            self._set_up(context_tokens, gpu_layers, sequences)
            if adapter:
                self._model.apply_adapter(adapter)
        except BaseException:
            self.close()
            raise

    def _load(self, path: Path, gpu_layers: int) -> None:
        try:
            self._model.load(path, gpu_layers, self._tuning)
        finally:
            self._grammar_vocabulary.loaded(self._model.vocab)

    def _set_up(self, context_tokens: int | None, gpu_layers: int, sequences: int) -> None:
        tuning = self._tuning
        self.context_tokens = min(self._model.trained_tokens, context_tokens or CONTEXT_TOKENS)
        if tuning.flash_attention is None and not gpu_layers and sequences == 1:  # quicker for few tokens, on a CPU
            tuning = replace(tuning, flash_attention=tuning.kv_type != "f16")
        self._model.make_context(self.context_tokens, tuning, sequences)
        self._sequences = [_Sequence(number, []) for number in range(sequences)]
        # the primed prefix; with one sequence only, it is that one's, whose prompts begin with it anyway
        self._home = _Sequence(sequences, []) if sequences > 1 else self._sequences[0]

    def __enter__(self) -> LlamaEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the model's memory; the engine cannot be used afterwards. Closing twice is fine."""
        self._grammar_vocabulary.loaded(None)
        self._model.close()

    def memory_bytes(self) -> int:
        """Return the largest resident memory this process had, in bytes."""
        return peak_resident_bytes()

    def prime(self, prefix: str) -> bool:
        """Evaluate a prefix, so that prompts that start with it are quick.

        Returns:
            Whether it was evaluated already, such as by `restore`.

        Raises:
            UsageError: it does not fit.
        """
        tokens, home = self._tokenize(prefix), self._home
        require_room(len(tokens), Limits(reply_tokens=0), self.context_tokens)
        known = common_length(home.evaluated, tokens)
        if known == len(tokens):
            return True
        self._forget(home, known)
        while missing := tokens[len(home.evaluated) :]:
            self._evaluate([(home, missing[: self._tuning.batch_tokens], [])])
        return False

    def prefill_idle(self, prompt: str) -> None:
        """Evaluate how the next prompt begins, a few tokens at a time, until `cancel`; nothing if it does not fit."""
        tokens, home = self._tokenize(prompt), self._home
        if len(tokens) < self.context_tokens:
            self._share(home, tokens)
            while (missing := tokens[len(home.evaluated) :]) and not self._is_cancelled:
                self._evaluate([(home, missing[:IDLE_PREFILL_TOKENS], [])])
        self._is_cancelled = False

    def cancel(self) -> None:
        """End what is being made at the next step of the model; replies end as if their time were up."""
        self._is_cancelled = True

    def state(self) -> bytes:
        """Return what was evaluated last, to be cached for the next start: its tokens and their states."""
        tokens = np.array(self._home.evaluated, np.int32)
        return struct.pack("<I", tokens.size) + tokens.tobytes() + self._model.state(self._home.number)

    def restore(self, state: memoryview) -> bool:
        """Take a state that `state` gave, of the same model and settings; return whether llama.cpp took it."""
        (count,) = struct.unpack_from("<I", state)
        start = 4 + 4 * count
        if is_taken := self._model.restore(self._home.number, state[start:]):
            self._home.evaluated = np.frombuffer(state[4:start], np.int32).tolist()
        return is_taken

    def generate(self, requests: Sequence[Request], on_text: Callable[[str], None] | None = None) -> list[Completion]:
        """Return one greedy completion for each request, in order; as many as there are sequences are made at once.

        Args:
            requests: what to complete.
            on_text: of a single request, takes the text of its reply so far after each step of the model.

        Raises:
            UsageError: a prompt and its reply do not fit the context.
            UnavailableError: llama.cpp or the grammar failed; nothing was generated without its grammar.
        """
        self._is_cancelled = False
        prompts = [self._tokenize(request.prompt) for request in requests]
        for prompt, request in zip(prompts, requests, strict=True):
            require_room(len(prompt), request.limits, self.context_tokens)
        waiting = deque(enumerate(zip(requests, prompts, strict=True)))
        going: dict[int, tuple[DecodingLoop, _Sequence]] = {}
        completions: dict[int, Completion] = {}
        free = list(self._sequences)
        while waiting or going:
            while waiting and free:
                index, (request, prompt) = waiting.popleft()
                going[index] = self._begin(request, prompt, free)
            for index, (loop, sequence) in list(going.items()):
                if loop.stop_reason is None and (loop.is_late() or self._is_cancelled):
                    loop.end("timeout")
                if loop.stop_reason is not None:
                    completions[index] = loop.completion(self._vocabulary.text_of)
                    free.append(sequence)
                    del going[index]
            self._step(list(going.values()))
            if on_text:
                for loop, _ in going.values():
                    on_text(loop.text(self._vocabulary.text_of))
        return [completions[index] for index in range(len(requests))]

    def accepts(self, grammar: Grammar, token_ids: Sequence[int]) -> bool:
        """Return whether the grammar would have changed nothing about this free reply; evaluation asks."""
        return self._vocabulary.would_give(grammar, token_ids)

    def _begin(self, request: Request, prompt: list[int], free: list[_Sequence]) -> tuple[DecodingLoop, _Sequence]:
        """Begin a reply in a free sequence, with what any sequence has of its prompt.

        A sequence whose conversation goes on is taken as it is; else the one that was used longest ago is given up.
        """
        matcher = Matcher(self._vocabulary, request.grammar)
        whole = prompt[:-1]  # the last token is evaluated again, for its logits, if the whole prompt is known
        sequence = max(free, key=lambda one: common_length(one.evaluated, whole))
        if len(sequence.evaluated) - common_length(sequence.evaluated, whole) > MOST_DROPPED_TOKENS:
            sequence = min(free, key=lambda one: one.used)
        free.remove(sequence)
        self._uses += 1
        sequence.used = self._uses
        self._share(sequence, whole)
        known = len(sequence.evaluated)
        return DecodingLoop(request, prompt, known, matcher, self._tuning.draft_tokens, self._ngram_cache), sequence

    def _share(self, sequence: _Sequence, tokens: list[int]) -> None:
        """Have a sequence hold as much of how tokens begin as it or any other has, and nothing else."""
        source = max((*self._sequences, self._home), key=lambda one: common_length(one.evaluated, tokens))
        if (shared := common_length(source.evaluated, tokens)) > common_length(sequence.evaluated, tokens):
            self._forget(sequence, 0)
            self._model.copy(source.number, sequence.number, shared)
            sequence.evaluated = tokens[:shared]
        self._forget(sequence, common_length(sequence.evaluated, tokens))

    def _step(self, going: Sequence[tuple[DecodingLoop, _Sequence]]) -> None:
        """Evaluate what replies wait for, together as far as a batch goes, and let the model decide for each."""
        room, parts = self._tuning.batch_tokens, list[tuple[DecodingLoop, _Sequence, int, int]]()
        for loop, sequence in going:
            count = min(room, len(loop.pending) + len(loop.draft))
            if count:
                parts.append((loop, sequence, count, len(sequence.evaluated)))
                room -= count
        if parts:
            answers = self._evaluate(
                [
                    (sequence, (loop.pending + loop.draft)[:count], range(loop.first_wanted, count))
                    for loop, sequence, count, _ in parts
                ]
            )
            for (loop, sequence, count, before), model in zip(parts, answers, strict=True):
                self._forget(sequence, before + loop.take(count, model))

    def _tokenize(self, text: str) -> list[int]:
        return self._model.tokenize(text)

    def _forget(self, sequence: _Sequence, count: int) -> None:
        """Drop all but the first `count` tokens of a sequence from the KV cache; or all, if they cannot stay."""
        if count < len(sequence.evaluated):
            if not self._model.truncate(sequence.number, count):
                count = 0
            del sequence.evaluated[count:]

    def _evaluate(self, parts: Sequence[tuple[_Sequence, list[int], Collection[int]]]) -> list[NextToken]:
        """Append tokens to sequences, at most a batch in all.

        Args:
            parts: a sequence, tokens that come after those evaluated, and the indexes of those whose logits are wanted.

        Returns:
            For each part what the model says of the token after one of those, until the next call.

        Raises:
            UnavailableError: llama.cpp failed; the KV cache is empty then.
        """
        try:
            self._model.decode((one.number, len(one.evaluated), tokens, wanted) for one, tokens, wanted in parts)
        except UnavailableError:
            for sequence in (*self._sequences, self._home):
                sequence.evaluated.clear()
            raise
        start, answers = 0, list[NextToken]()
        for sequence, tokens, _ in parts:
            sequence.evaluated += tokens
            answers.append(_NextToken(self._model, start))
            start += len(tokens)
        return answers
