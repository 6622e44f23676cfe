"""The llama.cpp engine: greedy replies from a GGUF file. Only this file and the other llama_*.py know llama_cpp.

What a prompt has in common with what was evaluated last is never evaluated again, and tokens that the grammar forces
are evaluated together with the next decision (decoding_loop.py). Several replies share the primed prefix and each step.

Does not guard against: a crash inside llama.cpp. Run the engine in a process of its own (process.py).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from devices.errors import UnavailableError, UsageError
from edge_agent.engine.autotune import USUAL, Tuning
from edge_agent.engine.decoding_loop import DecodingLoop, Likeliest, NgramCache
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
from edge_agent.engine.llama_cpp_parameters import apply_adapter, model_parameters
from edge_agent.engine.llama_cpp_vocabulary import GrammarVocabulary, TokenTable
from edge_agent.grammar.grammar import Grammar
from edge_agent.grammar.token_mask import Matcher

AHEAD_TOKENS = 16  # evaluated at once while nobody waits, so that who comes then waits for no more
SMALL_MODEL_PARAMETERS = 50_000_000  # below, one thread beats several: they wait for each other longer than they work
LOG_LEVEL_ERROR = 4  # ggml.h, GGML_LOG_LEVEL_ERROR (llama-cpp-python 0.3.36 still lists the older numbers)
_log_lines: deque[str] = deque(maxlen=8)


@llama_cpp.llama_log_callback
def _keep_log(level: int, text: bytes, _data: ctypes.c_void_p) -> None:  # must live as long as the process
    if level == LOG_LEVEL_ERROR:
        _log_lines.append(text.decode("utf-8", errors="replace").strip())


# A log callback that does nothing: a function of llama.cpp's without arguments ignores those that it is called with.
_SILENT = ctypes.cast(llama_cpp.llama_cpp._lib.llama_max_devices, llama_cpp.llama_log_callback)


@dataclass
class _Sequence:
    """One of llama.cpp's sequences, and the tokens in its part of the KV cache, by position."""

    number: int
    evaluated: list[int]


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
        llama_cpp.llama_log_set(_keep_log, ctypes.c_void_p(0))
        self._context: Any = None
        self._batch: Any = None
        self._model: Any = None
        self._vocab: Any = None
        self._is_cancelled, self._tuning, self._earlier = False, tuning, NgramCache()
        require_gguf(model_path)
        self._grammar_vocabulary = GrammarVocabulary()
        try:
            with ThreadPoolExecutor(1) as beside:  # llguidance holds Python's lock all the while, llama.cpp does not
                loading = beside.submit(self._load, model_path, gpu_layers)
                made = self._grammar_vocabulary.make(token_table) if token_table else None
            loading.result()
            self._vocabulary, self.token_table = made or self._grammar_vocabulary.make()
            self._set_up(context_tokens, gpu_layers, sequences)
            if adapter:
                _log_lines.clear()
                if not apply_adapter(self._model, self._context, adapter):
                    raise UsageError(f"llama.cpp cannot lay {adapter} over the model{_log_tail()}")
        except BaseException:
            self.close()
            raise

    def _load(self, path: Path, gpu_layers: int) -> None:
        try:
            self._model = _load_model(path, gpu_layers, self._tuning)
            self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        finally:
            self._grammar_vocabulary.loaded(self._vocab)

    def _set_up(self, context_tokens: int | None, gpu_layers: int, sequences: int) -> None:
        tuning = self._tuning
        trained_tokens = llama_cpp.llama_model_n_ctx_train(self._model)
        self.context_tokens = min(trained_tokens, context_tokens or CONTEXT_TOKENS)
        if tuning.flash_attention is None and not gpu_layers and sequences == 1:  # quicker for few tokens, on a CPU
            tuning = replace(tuning, flash_attention=tuning.kv_type != "f16")
        self._context = _make_context(self._model, self.context_tokens, tuning, sequences)
        self._batch = llama_cpp.llama_batch_init(self._tuning.batch_tokens, 0, 1)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._sequences = [_Sequence(number, []) for number in range(sequences)]
        # the primed prefix; with one sequence only, it is that one's, whose prompts begin with it anyway
        self._home = _Sequence(sequences, []) if sequences > 1 else self._sequences[0]

    def __enter__(self) -> LlamaEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the model's memory; the engine cannot be used afterwards. Closing twice is fine."""
        if self._batch is not None:
            llama_cpp.llama_batch_free(self._batch)
        if self._context is not None:
            llama_cpp.llama_free(self._context)
        self._grammar_vocabulary.loaded(None)
        if self._model is not None:
            llama_cpp.llama_model_free(self._model)
        self._model = self._vocab = self._context = self._batch = None

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
            self._forget(home, common_length(home.evaluated, tokens))
            while (missing := tokens[len(home.evaluated) :]) and not self._is_cancelled:
                self._evaluate([(home, missing[:AHEAD_TOKENS], [])])
        self._is_cancelled = False

    def cancel(self) -> None:
        """End what is being made at the next step of the model; replies end as if their time were up."""
        self._is_cancelled = True

    def state(self) -> bytes:
        """Return what was evaluated last, to be kept for the next start: its tokens and their states."""
        tokens = np.array(self._home.evaluated, np.int32)
        size_bytes = llama_cpp.llama_state_seq_get_size(self._context, self._home.number)
        data = (ctypes.c_uint8 * size_bytes)()
        written = llama_cpp.llama_state_seq_get_data(self._context, data, size_bytes, self._home.number)
        return struct.pack("<I", tokens.size) + tokens.tobytes() + memoryview(data).cast("B")[:written]

    def restore(self, state: memoryview) -> bool:
        """Take a state that `state` gave, of the same model and settings; return whether llama.cpp took it."""
        (count,) = struct.unpack_from("<I", state)
        start = 4 + 4 * count
        data = (ctypes.c_uint8 * (len(state) - start)).from_buffer_copy(state[start:])
        if llama_cpp.llama_state_seq_set_data(self._context, data, len(data), self._home.number) != len(data):
            llama_cpp.llama_memory_clear(self._memory, True)
            return False
        self._home.evaluated = np.frombuffer(state[4:start], np.int32).tolist()
        return True

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return one greedy completion for each request, in order; as many as there are sequences are made at once.

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
            for index, (run, sequence) in list(going.items()):
                if run.stop_reason is None and (run.is_late() or self._is_cancelled):
                    run.end("timeout")
                if run.stop_reason is not None:
                    completions[index] = run.completion(self._vocabulary.text_of)
                    free.append(sequence)
                    del going[index]
            self._step(list(going.values()))
        return [completions[index] for index in range(len(requests))]

    def accepts(self, grammar: Grammar, token_ids: Sequence[int]) -> bool:
        """Return whether the grammar would have changed nothing about this free reply; evaluation asks."""
        return self._vocabulary.would_give(grammar, token_ids)

    def _begin(self, request: Request, prompt: list[int], free: list[_Sequence]) -> tuple[DecodingLoop, _Sequence]:
        """Take the free sequence that has most of a prompt, or give it the prefix's states; begin the reply in it."""
        matcher = Matcher(self._vocabulary, request.grammar)
        # the last token is evaluated again, for its logits, if the whole prompt is known
        sequence = max(free, key=lambda one: common_length(one.evaluated, prompt[:-1]))
        free.remove(sequence)
        if (shared := common_length(self._home.evaluated, prompt[:-1])) > common_length(sequence.evaluated, prompt):
            self._forget(sequence, 0)
            llama_cpp.llama_memory_seq_cp(self._memory, self._home.number, sequence.number, 0, shared)
            sequence.evaluated = prompt[:shared]
        self._forget(sequence, common_length(sequence.evaluated, prompt[:-1]))
        known = len(sequence.evaluated)
        return DecodingLoop(request, prompt, known, matcher, self._tuning.draft_tokens, self._earlier), sequence

    def _step(self, going: Sequence[tuple[DecodingLoop, _Sequence]]) -> None:
        """Evaluate what replies wait for, together as far as a batch goes, and let the model decide for each."""
        room, parts = self._tuning.batch_tokens, list[tuple[DecodingLoop, _Sequence, int, int]]()
        for run, sequence in going:
            count = min(room, len(run.pending) + len(run.draft))
            if count:
                parts.append((run, sequence, count, len(sequence.evaluated)))
                room -= count
        if parts:
            answers = self._evaluate(
                [
                    (sequence, (run.pending + run.draft)[:count], range(run.first_wanted, count))
                    for run, sequence, count, _ in parts
                ]
            )
            for (run, sequence, count, before), likeliest in zip(parts, answers, strict=True):
                kept_count = run.take(count, likeliest)
                self._forget(sequence, before + kept_count)

    def _tokenize(self, text: str) -> list[int]:
        if self._context is None:
            raise UsageError("the engine is closed")
        raw = text.encode("utf-8")
        buffer = (llama_cpp.llama_token * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), buffer, len(buffer), False, True)
        if count < 0:
            raise UnavailableError(f"llama.cpp could not tokenize {len(raw)} bytes ({count})")
        return list(buffer[:count])

    def _forget(self, sequence: _Sequence, count: int) -> None:
        """Drop all but the first `count` tokens of a sequence from the KV cache; or all, if they cannot be kept."""
        if count < len(sequence.evaluated):
            if not llama_cpp.llama_memory_seq_rm(self._memory, sequence.number, count, -1):
                count = 0  # a recurrent model cannot go back to the middle
                llama_cpp.llama_memory_seq_rm(self._memory, sequence.number, -1, -1)
            del sequence.evaluated[count:]

    def _evaluate(self, parts: Sequence[tuple[_Sequence, list[int], Sequence[int]]]) -> list[Likeliest]:
        """Append tokens to sequences, at most a batch in all.

        Args:
            parts: a sequence, tokens that come after those evaluated, and the indexes of those whose logits are wanted.

        Returns:
            For each part what gives the likeliest token after one of those, until the next call.

        Raises:
            UnavailableError: llama.cpp failed; the KV cache is empty then.
        """
        batch, at, starts = self._batch, 0, []
        for sequence, tokens, wanted in parts:
            starts.append(at)
            before = len(sequence.evaluated)
            for index, token in enumerate(tokens):
                batch.token[at], batch.pos[at], batch.seq_id[at][0] = token, before + index, sequence.number
                batch.n_seq_id[at], batch.logits[at] = 1, index in wanted
                at += 1
        batch.n_tokens = at
        batch.logits[at - 1] = True
        code = llama_cpp.llama_decode(self._context, batch)
        if code != 0:
            for sequence in (*self._sequences, self._home):
                sequence.evaluated.clear()
            llama_cpp.llama_memory_clear(self._memory, True)
            reason = "the context is full" if code == 1 else f"code {code}"
            raise UnavailableError(f"llama.cpp could not evaluate {at} tokens: {reason}{_log_tail()}")
        for sequence, tokens, _ in parts:
            sequence.evaluated += tokens
        return [partial(self._likeliest, start) for start in starts]

    def _likeliest(self, start: int, index: int, among: NDArray[np.intp] | None) -> int:
        """Return the likeliest token after the token at start + index of the last batch, of all or of some."""
        pointer = llama_cpp.llama_get_logits_ith(self._context, start + index)
        logits = np.ctypeslib.as_array(pointer, shape=(self._vocabulary.size,))
        return int(logits.argmax() if among is None else among[logits[among].argmax()])


def _load_model(path: Path, gpu_layers: int, tuning: Tuning) -> Any:
    llama_cpp.llama_backend_init()
    parameters = model_parameters(gpu_layers, tuning)
    # A line of Python for each line of its log would make llama.cpp wait for whoever else holds Python's lock.
    llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p(0))
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
    llama_cpp.llama_log_set(_keep_log, ctypes.c_void_p(0))
    if not model:  # once more, to hear why
        _log_lines.clear()
        model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
    if not model:
        raise UsageError(f"llama.cpp cannot load {path}{_log_tail()}", hint="the file may be cut short: verify it")
    return model


def _default_threads(model: Any) -> int:
    if llama_cpp.llama_model_n_params(model) < SMALL_MODEL_PARAMETERS:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _make_context(model: Any, context_tokens: int, tuning: Tuning, sequences: int) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = context_tokens * sequences
    if sequences > 1:
        params.n_seq_max = sequences + 1  # and the prefix, which they share
        params.kv_unified = True
    params.n_batch = params.n_ubatch = min(tuning.batch_tokens, context_tokens)
    params.n_threads = params.n_threads_batch = tuning.threads or _default_threads(model)
    if tuning.flash_attention is not None:
        enabled, disabled = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED, llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.flash_attn_type = enabled if tuning.flash_attention else disabled
    if tuning.kv_type == "q8_0":
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_Q8_0
    params.no_perf = True
    _log_lines.clear()
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise UnavailableError(
            f"llama.cpp has no memory for a context of {context_tokens} tokens{_log_tail()}",
            hint="ask for a smaller one",
        )
    return context


def _log_tail() -> str:
    return f": {' / '.join(_log_lines)}" if _log_lines else ""
