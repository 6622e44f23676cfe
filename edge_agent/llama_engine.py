"""The llama.cpp engine: greedy replies from a GGUF file. Only this file and the other llama_*.py know llama_cpp.

One sequence, one KV cache: what a prompt has in common with what was evaluated last is never evaluated again, and
tokens that the grammar forces are evaluated together with the next decision.

Does not guard against: a crash inside llama.cpp. Run the engine in a process of its own (engine_process.py).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from devices.errors import UnavailableError, UsageError
from edge_agent.engine import (
    Completion,
    Limits,
    Request,
    StopReason,
    common_length,
    peak_resident_bytes,
    require_room,
)
from edge_agent.gguf_header import require_gguf
from edge_agent.grammar import Grammar
from edge_agent.kept_file import keep, kept
from edge_agent.llama_parameters import model_parameters
from edge_agent.llama_vocabulary import read_vocabulary
from edge_agent.matching import Matcher

CONTEXT_TOKENS = 2048
BATCH_TOKENS = 256  # evaluated at once; the timeout is looked at between two batches
SEQUENCE = 0
SMALL_MODEL_PARAMETERS = 50_000_000  # below, one thread beats several: they wait for each other longer than they work
STATE_FILE = "prefix.state"
LOG_LEVEL_ERROR = 4  # ggml.h, GGML_LOG_LEVEL_ERROR (llama-cpp-python 0.3.36 still lists the older numbers)
_log_lines: deque[str] = deque(maxlen=8)


@llama_cpp.llama_log_callback
def _keep_log(level: int, text: bytes, _data: ctypes.c_void_p) -> None:  # must live as long as the process
    if level == LOG_LEVEL_ERROR:
        _log_lines.append(text.decode("utf-8", errors="replace").strip())


class _TimeIsUp(Exception):
    """The reply's timeout passed, or it was cancelled; what was evaluated stays in the cache."""


@dataclass(frozen=True)
class Kept:
    """Where the primed state is kept between starts.

    `identity` is what the model's files are, such as their digests: what was kept under another is not used.
    """

    folder: Path
    identity: str


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
        threads: int | None = None,
        kept: Kept | None = None,
    ) -> None:
        """Load a model.

        Args:
            model_path: a GGUF file.
            adapter: a LoRA adapter's GGUF file to lay over it.
            context_tokens: room for prompt and reply; None takes the model's, at most CONTEXT_TOKENS.
            gpu_layers: how many layers to put on the GPU; more than the model has puts all.
            threads: for prefill and decode; None takes one for a model of under SMALL_MODEL_PARAMETERS, else one
                for each core this process may use.
            kept: where `prime` keeps its state; None keeps none.

        Raises:
            BadGguf: the file's header is unsound.
            UsageError: no such file, one that llama.cpp cannot read, or an adapter of another model.
            UnavailableError: no memory for its context.
        """
        llama_cpp.llama_log_set(_keep_log, ctypes.c_void_p(0))
        self._context: Any = None
        self._batch: Any = None
        self._kept, self._is_cancelled = kept, False
        self._model = _load_model(Path(model_path), gpu_layers)
        try:
            self._set_up(context_tokens, threads)
            if adapter:
                self._lay_over(adapter)
        except BaseException:
            self.close()
            raise

    def _set_up(self, context_tokens: int | None, threads: int | None) -> None:
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        trained_tokens = llama_cpp.llama_model_n_ctx_train(self._model)
        self.context_tokens = context_tokens or min(trained_tokens, CONTEXT_TOKENS)
        self._context = _make_context(self._model, self.context_tokens, threads or _default_threads(self._model))
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._evaluated: list[int] = []  # the tokens in the KV cache, by position
        self._vocabulary = read_vocabulary(self._vocab)

    def _lay_over(self, adapter: Path) -> None:
        """Lay an adapter over the model; llama.cpp frees it with the model."""
        _log_lines.clear()
        laid = llama_cpp.llama_adapter_lora_init(self._model, os.fsencode(adapter))
        one, whole = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(laid), (ctypes.c_float * 1)(1.0)
        if not laid or llama_cpp.llama_set_adapters_lora(self._context, one, 1, whole):
            raise UsageError(f"llama.cpp cannot lay {adapter} over the model{_log_tail()}")

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
        if self._model is not None:
            llama_cpp.llama_model_free(self._model)
        self._model = self._context = self._batch = None

    def memory_bytes(self) -> int:
        """Return the largest resident memory this process had, in bytes."""
        return peak_resident_bytes()

    def prime(self, prefix: str) -> bool:
        """Evaluate a prefix, or take its kept state, so that prompts that start with it are quick.

        Returns:
            Whether its state was there.

        Raises:
            UsageError: it does not fit.
        """
        tokens = self._tokenize(prefix)
        require_room(len(tokens), Limits(reply_tokens=0), self.context_tokens)
        path, key = self._kept_state(tokens)
        if path and not self._evaluated and self._restore(tokens, kept(path, key)):
            return True
        reused = self._keep(common_length(self._evaluated, tokens))
        if tokens[reused:]:
            self._evaluate(tokens[reused:], 0, None)
        if path and len(self._evaluated) == len(tokens):
            with suppress(OSError):  # a disk that is full or cannot be written to costs time at the next start
                path.parent.mkdir(parents=True, exist_ok=True)
                keep(path, key, self._state())
        return False

    def cancel(self) -> None:
        """End the reply that is being made at the next step of the model, as if its time were up."""
        self._is_cancelled = True

    def _kept_state(self, tokens: list[int]) -> tuple[Path | None, str]:
        """Return the file of a prefix's state and its key, which names all that the state depends on."""
        if self._kept is None:
            return None, ""
        facts = [self._kept.identity, llama_cpp.__version__, str(self.context_tokens), repr(tokens)]
        key = hashlib.sha256("\0".join(facts).encode()).hexdigest()
        return self._kept.folder / STATE_FILE, key

    def _state(self) -> memoryview:
        size_bytes = llama_cpp.llama_state_seq_get_size(self._context, SEQUENCE)
        data = (ctypes.c_uint8 * size_bytes)()
        written = llama_cpp.llama_state_seq_get_data(self._context, data, size_bytes, SEQUENCE)
        return memoryview(data).cast("B")[:written]

    def _restore(self, tokens: list[int], state: memoryview | None) -> bool:
        if state is None:
            return False
        data = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if llama_cpp.llama_state_seq_set_data(self._context, data, len(state), SEQUENCE) != len(state):
            llama_cpp.llama_memory_clear(self._memory, True)
            return False
        self._evaluated = list(tokens)
        return True

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return one greedy completion for each request, in order.

        Raises:
            UsageError: a prompt and its reply do not fit the context.
            UnavailableError: llama.cpp or the grammar failed; nothing was generated without its grammar.
        """
        self._is_cancelled = False
        return [self._reply(request) for request in requests]

    def accepts(self, grammar: Grammar, token_ids: Sequence[int]) -> bool:
        """Return whether the grammar would have changed nothing about this free reply; evaluation asks."""
        return self._vocabulary.would_give(grammar, token_ids)

    def _reply(self, request: Request) -> Completion:
        started, limit_s = time.monotonic(), request.limits.timeout_s
        deadline = None if limit_s is None else started + limit_s
        prompt = self._tokenize(request.prompt)
        require_room(len(prompt), request.limits, self.context_tokens)
        matcher = Matcher(self._vocabulary, request.grammar)
        # the last token is evaluated again, for its logits, if the whole prompt is known
        reused = self._keep(min(common_length(self._evaluated, prompt), len(prompt) - 1))
        pending, forced, overruled, steps = prompt[reused:], 0, 0, 0
        reply: list[int] = []
        first_logits_at: float | None = None
        stop_reason: StopReason = "end_of_turn"
        while True:
            taken = matcher.take_forced()
            forced, reply, pending = forced + len(taken), reply + taken, pending + taken
            if matcher.is_over:
                break
            if len(reply) >= request.limits.reply_tokens:
                stop_reason = "length"
                break
            try:
                logits, others = self._evaluate(pending, len(taken), deadline)
            except _TimeIsUp:
                stop_reason = "timeout"
                break
            steps, first_logits_at = steps + 1, first_logits_at or time.monotonic()
            token, is_overruled = matcher.best(logits)
            overruled += others + is_overruled
            if not matcher.accept(token):
                break
            pending = [token]
            reply.append(token)
        reply, ended = reply[: request.limits.reply_tokens], time.monotonic()
        first_logits_at = first_logits_at or ended
        return Completion(
            text=self._vocabulary.text_of(reply),
            token_ids=tuple(reply),
            stop_reason=stop_reason,
            prompt_tokens=len(prompt),
            reused_tokens=reused,
            model_steps=steps,
            forced_tokens=forced,
            overruled_tokens=overruled,
            prefill_s=first_logits_at - started,
            decode_s=ended - first_logits_at,
        )

    def _tokenize(self, text: str) -> list[int]:
        if self._context is None:
            raise UsageError("the engine is closed")
        raw = text.encode("utf-8")
        buffer = (llama_cpp.llama_token * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), buffer, len(buffer), False, True)
        if count < 0:
            raise UnavailableError(f"llama.cpp could not tokenize {len(raw)} bytes ({count})")
        return list(buffer[:count])

    def _keep(self, count: int) -> int:
        """Drop all but the first `count` tokens from the KV cache; return how many could be kept."""
        if count < len(self._evaluated):
            if not llama_cpp.llama_memory_seq_rm(self._memory, SEQUENCE, count, -1):
                count = 0  # a recurrent model cannot go back to the middle
                llama_cpp.llama_memory_clear(self._memory, True)
            del self._evaluated[count:]
        return count

    def _evaluate(self, tokens: list[int], forced: int, deadline: float | None) -> tuple[NDArray[np.float32], int]:
        """Append tokens to the KV cache.

        Args:
            tokens: what comes after what was evaluated last.
            forced: how many of them, at the end, the grammar chose; the model's own choice is held against them.
            deadline: in monotonic seconds.

        Returns:
            The last token's logits, a float32 (vocabulary,) view into llama.cpp, and how many of the forced tokens
            the model would have spelled otherwise.

        Raises:
            _TimeIsUp: the deadline passed before the last batch.
            UnavailableError: llama.cpp failed; the KV cache is empty then.
        """
        first_wanted, overruled = len(tokens) - 1 - forced, 0
        for start in range(0, len(tokens), BATCH_TOKENS):
            if self._is_cancelled or (deadline is not None and time.monotonic() >= deadline):
                raise _TimeIsUp
            part = tokens[start : start + BATCH_TOKENS]
            self._decode(part, max(0, first_wanted - start))
            for index in range(max(first_wanted, start), min(start + len(part), len(tokens) - 1)):
                wanted = int(self._logits(index - start).argmax())
                overruled += self._vocabulary.spells_other(wanted, tokens[index + 1])
        return self._logits(-1), overruled

    def _decode(self, part: list[int], first_wanted: int) -> None:
        """Evaluate at most BATCH_TOKENS tokens; logits are kept from index `first_wanted` on, and of the last."""
        batch, at = self._batch, len(self._evaluated)
        batch.n_tokens = len(part)
        for index, token in enumerate(part):
            batch.token[index], batch.pos[index], batch.seq_id[index][0] = token, at + index, SEQUENCE
            batch.n_seq_id[index], batch.logits[index] = 1, index >= first_wanted
        batch.logits[len(part) - 1] = True
        code = llama_cpp.llama_decode(self._context, batch)
        if code != 0:
            self._evaluated.clear()
            llama_cpp.llama_memory_clear(self._memory, True)
            reason = "the context is full" if code == 1 else f"code {code}"
            raise UnavailableError(f"llama.cpp could not evaluate {len(part)} tokens: {reason}{_log_tail()}")
        self._evaluated += part

    def _logits(self, index: int) -> NDArray[np.float32]:
        pointer = llama_cpp.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, shape=(self._vocabulary.size,))


def _load_model(path: Path, gpu_layers: int) -> Any:
    require_gguf(path)
    llama_cpp.llama_backend_init()
    _log_lines.clear()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), model_parameters(gpu_layers))
    if not model:
        raise UsageError(f"llama.cpp cannot load {path}{_log_tail()}", hint="the file may be cut short: verify it")
    return model


def _default_threads(model: Any) -> int:
    if llama_cpp.llama_model_n_params(model) < SMALL_MODEL_PARAMETERS:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _make_context(model: Any, context_tokens: int, threads: int) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = context_tokens
    params.n_batch = params.n_ubatch = min(BATCH_TOKENS, context_tokens)
    params.n_threads = params.n_threads_batch = threads
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
