"""A GGUF file that llama.cpp has loaded, and one context of it: what this project asks of llama.cpp, and nothing more.

Does not guard against: a crash inside llama.cpp, such as over an unsound header (gguf_header.py checks that).
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections import deque
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from devices.errors import UnavailableError, UsageError
from edge_agent.engine.autotune import USUAL, Tuning

SMALL_MODEL_PARAMETERS = 50_000_000  # below, one thread beats several: they wait for each other longer than they work
LOG_LEVEL_ERROR = 4  # ggml.h, GGML_LOG_LEVEL_ERROR (llama-cpp-python 0.3.36 still lists the older numbers)
_log_lines: deque[str] = deque(maxlen=8)


@llama_cpp.llama_log_callback
def _collect_log(level: int, text: bytes, _data: ctypes.c_void_p) -> None:  # must live as long as the process
    if level == LOG_LEVEL_ERROR:
        _log_lines.append(text.decode("utf-8", errors="replace").strip())


# A log callback that does nothing: a function of llama.cpp's without arguments ignores those that it is called with.
_SILENT = ctypes.cast(llama_cpp.llama_cpp._lib.llama_max_devices, llama_cpp.llama_log_callback)


def collect_log() -> None:
    """Keep llama.cpp's log off stderr as long as the process lives; its last errors end the messages of ours."""
    llama_cpp.llama_log_set(_collect_log, ctypes.c_void_p(0))


def _log_tail() -> str:
    return f": {' / '.join(_log_lines)}" if _log_lines else ""


def model_parameters(gpu_layers: int, tuning: Tuning = USUAL) -> Any:
    """Return llama.cpp's parameters for loading a model.

    Repacked weights suit a processor's dot products; llama.cpp makes them while it loads, beside those of the file. On
    x86-64 that is not worth it: with AVX-512, 1B as Q4_K_M, a prompt takes 6.9 ms a token with them and 4.7 without, a
    step 56 ms and 66, and the model is there 0.7 s later, with a second copy in memory. ARM's are made for Q4_0.

    Where llama.cpp was compiled with AMX, it repacks for those units and dies of a segmentation fault at the first
    evaluation (0c1e57098, GCC 12, Xeon with amx_int8, Q8_0): there are none then, whoever asks.

    Args:
        gpu_layers: layers on a GPU; -1 is all.
        tuning: `repacks` (None is what the processor is quickest with), `mmap` and `mlock` of it.
    """
    repacks = tuning.repacks
    if repacks is None:
        repacks = platform.machine().lower() not in {"x86_64", "amd64"}
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = gpu_layers
    parameters.use_mmap, parameters.use_mlock = tuning.mmap, tuning.mlock
    parameters.use_extra_bufts = repacks and b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info()
    return parameters


def vocabulary_problem(path: Path) -> str:
    """Return why llama.cpp cannot read a model's settings and vocabulary, its weights left out; "" if it can."""
    llama_cpp.llama_backend_init()
    collect_log()
    parameters = model_parameters(0)
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
    if not model:
        return f"llama.cpp cannot load {path}{_log_tail()}"
    llama_cpp.llama_model_free(model)
    return ""


class LlamaModel:
    """A model: `load` it, `make_context`, then evaluate tokens; `close` frees it. Not for two threads at once.

    Attributes:
        vocab: llama.cpp's vocabulary; None while no model is loaded.
        vocabulary_size: how many tokens it has; known with the context.
    """

    def __init__(self) -> None:
        self._model: Any = None
        self._context: Any = None
        self._batch: Any = None
        self.vocab: Any = None

    def load(self, path: Path, gpu_layers: int = 0, tuning: Tuning = USUAL) -> None:
        """Load a GGUF file whose header `require_gguf` found sound. Raises UsageError if llama.cpp cannot."""
        llama_cpp.llama_backend_init()
        parameters = model_parameters(gpu_layers, tuning)
        # A line of Python for each line of its log would make llama.cpp wait for whoever else holds Python's lock.
        llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p(0))
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
        collect_log()
        if not self._model:  # once more, to hear why
            _log_lines.clear()
            self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self._model:
            raise UsageError(f"llama.cpp cannot load {path}{_log_tail()}", hint="the file may be cut short: verify it")
        self.vocab = llama_cpp.llama_model_get_vocab(self._model)

    def make_context(self, context_tokens: int, tuning: Tuning = USUAL, sequences: int = 1) -> None:
        """Make the context: sequences 0 and up; if there are several, one more for what they share.

        Raises:
            UnavailableError: no memory for it.
        """
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = context_tokens * sequences
        params.swa_full = True  # beyond an attention window, too: a sequence may go back to its middle
        if sequences > 1:
            params.n_seq_max = sequences + 1
            params.kv_unified = True
        params.n_batch = params.n_ubatch = min(tuning.batch_tokens, context_tokens)
        params.n_threads = params.n_threads_batch = tuning.threads or self._default_threads()
        if tuning.flash_attention is not None:
            enabled, disabled = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED, llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
            params.flash_attn_type = enabled if tuning.flash_attention else disabled
        if tuning.kv_type == "q8_0":
            params.type_k = params.type_v = llama_cpp.GGML_TYPE_Q8_0
        params.no_perf = True
        _log_lines.clear()
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise UnavailableError(
                f"llama.cpp has no memory for a context of {context_tokens} tokens{_log_tail()}",
                hint="ask for a smaller one",
            )
        self._batch = llama_cpp.llama_batch_init(tuning.batch_tokens, 0, 1)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self.vocabulary_size = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def _default_threads(self) -> int:
        if llama_cpp.llama_model_n_params(self._model) < SMALL_MODEL_PARAMETERS:
            return 1
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def apply_adapter(self, adapter: Path) -> None:
        """Apply a LoRA adapter's GGUF file to the context. Raises UsageError if it is another model's."""
        _log_lines.clear()
        applied = llama_cpp.llama_adapter_lora_init(self._model, os.fsencode(adapter))  # freed with the model
        one, whole = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(applied), (ctypes.c_float * 1)(1.0)
        if not applied or llama_cpp.llama_set_adapters_lora(self._context, one, 1, whole) != 0:
            raise UsageError(f"llama.cpp cannot apply {adapter} to the model{_log_tail()}")

    def close(self) -> None:
        """Free everything. Closing twice is fine."""
        if self._batch is not None:
            llama_cpp.llama_batch_free(self._batch)
        if self._context:
            llama_cpp.llama_free(self._context)
        if self._model:
            llama_cpp.llama_model_free(self._model)
        self._model = self.vocab = self._context = self._batch = None

    @property
    def trained_tokens(self) -> int:
        """The longest text that the model was trained on."""
        return int(llama_cpp.llama_model_n_ctx_train(self._model))

    def tokenize(self, text: str, *, is_start: bool = False) -> list[int]:
        """Return token ids; special tokens in the text are recognised, and those a file wants at a start are added."""
        if self.vocab is None:
            raise UsageError("the engine is closed")
        data = text.encode("utf-8")
        ids = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, len(ids), is_start, True)
        if count < 0:
            raise UnavailableError(f"llama.cpp could not tokenize {len(data)} bytes ({count})")
        return list(ids[:count])

    def is_end_of_generation(self, token_id: int) -> bool:
        """Return whether llama.cpp stops at this token."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab, token_id))

    def decode(self, parts: Iterable[tuple[int, int, list[int], Collection[int]]]) -> None:
        """Evaluate tokens, at most a batch in all.

        Args:
            parts: a sequence's number, the position of the first token, tokens, and the indexes of those whose logits
                are wanted.

        Raises:
            UnavailableError: llama.cpp failed; the KV cache is empty then.
        """
        batch, at = self._batch, 0
        for sequence, position, tokens, wanted in parts:
            for index, token in enumerate(tokens):
                batch.token[at], batch.pos[at], batch.seq_id[at][0] = token, position + index, sequence
                batch.n_seq_id[at], batch.logits[at] = 1, index in wanted
                at += 1
        batch.n_tokens = at
        batch.logits[at - 1] = True
        code = llama_cpp.llama_decode(self._context, batch)
        if code != 0:
            self.clear()
            reason = "the context is full" if code == 1 else f"code {code}"
            raise UnavailableError(f"llama.cpp could not evaluate {at} tokens: {reason}{_log_tail()}")

    def logits(self, index: int) -> NDArray[np.float32]:
        """Return the logits after a token of the last batch, by its index there, float32 (vocabulary,).

        They are llama.cpp's own memory: copy what must outlive the next batch.
        """
        pointer = llama_cpp.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary_size,))

    def clear(self) -> None:
        """Empty the KV cache."""
        llama_cpp.llama_memory_clear(self._memory, True)

    def truncate(self, sequence: int, count: int) -> bool:
        """Drop all but the first tokens of a sequence from the KV cache; return False if all of them had to go."""
        if llama_cpp.llama_memory_seq_rm(self._memory, sequence, count, -1):
            return True
        llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)  # a recurrent model cannot go back to the middle
        return False

    def copy(self, source: int, target: int, count: int) -> None:
        """Let a sequence share the first tokens of another in the KV cache."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, count)

    def state(self, sequence: int) -> memoryview:
        """Return a sequence's part of the KV cache as bytes."""
        size_bytes = llama_cpp.llama_state_seq_get_size(self._context, sequence)
        data = (ctypes.c_uint8 * size_bytes)()
        written = llama_cpp.llama_state_seq_get_data(self._context, data, size_bytes, sequence)
        return memoryview(data).cast("B")[:written]

    def restore(self, sequence: int, state: memoryview) -> bool:
        """Take what `state` gave; return whether llama.cpp took it. The KV cache is empty if not."""
        data = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if llama_cpp.llama_state_seq_set_data(self._context, data, len(data), sequence) == len(data):
            return True
        self.clear()
        return False
