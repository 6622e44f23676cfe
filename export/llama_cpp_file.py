"""The one file of this package that opens GGUF files by llama.cpp; its quantizers are in quantize/quantize.py."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.errors import UnavailableError
from edge_agent.engine.gguf_header import require_gguf

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

BATCH_TOKENS = 512
_LOG_LEVEL_ERROR = 4  # ggml.h, enum ggml_log_level


@contextmanager
def quiet() -> Iterator[deque[str]]:
    """Keep llama.cpp's log off stderr; yield its last error lines."""
    import llama_cpp

    errors: deque[str] = deque(maxlen=4)

    @llama_cpp.llama_log_callback
    def keep_errors(level: int, text: bytes, _: Any) -> None:
        if level == _LOG_LEVEL_ERROR:
            errors.append(text.decode("utf-8", "replace").strip())

    before, user_data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(user_data))
    llama_cpp.llama_log_set(keep_errors, ctypes.c_void_p())
    try:
        yield errors
    finally:
        llama_cpp.llama_log_set(before, user_data)


class LlamaFile:
    """A GGUF file opened by llama.cpp on the CPU; close it, or use it in `with`.

    Args:
        context_tokens: the longest text that log_probs takes.
        adapter: a LoRA file to apply to it.

    Raises:
        BadGguf: the header is unsound.
        UnavailableError: llama.cpp does not load it; the message has its last lines.
    """

    def __init__(self, path: Path, context_tokens: int = BATCH_TOKENS, adapter: Path | None = None) -> None:
        import llama_cpp

        from edge_agent.engine.llama_cpp_parameters import apply_adapter, model_parameters

        require_gguf(path)
        self._llama, self._context_tokens = llama_cpp, context_tokens
        self._model: Any = None
        self._context: Any = None
        with quiet() as errors:
            llama_cpp.llama_backend_init()
            self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_parameters(0))
            if self._model:
                parameters = llama_cpp.llama_context_default_params()
                parameters.n_ctx = -(-context_tokens // 256) * 256
                parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
                self._context = llama_cpp.llama_init_from_model(self._model, parameters)
            is_whole = bool(self._context) and (adapter is None or apply_adapter(self._model, self._context, adapter))
        if not is_whole:
            self.close()
            raise UnavailableError(f"llama.cpp cannot load {adapter or path}: {' '.join(errors)}")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary_size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)

    def __enter__(self) -> LlamaFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model."""
        with quiet():
            if self._context:
                self._llama.llama_free(self._context)
            if self._model:
                self._llama.llama_model_free(self._model)
        self._context = self._model = None

    def tokenize(self, text: str, *, is_start: bool = False) -> list[int]:
        """Return token ids; special tokens in the text are recognised, and those a file wants at a start are added."""
        data = text.encode()
        ids = (self._llama.llama_token * (len(data) + 8))()
        count = self._llama.llama_tokenize(self._vocab, data, len(data), ids, len(ids), is_start, True)
        assert count >= 0, (count, text)
        return list(ids[:count])

    def is_end_of_generation(self, token_id: int) -> bool:
        """Return whether llama.cpp stops at this token."""
        return bool(self._llama.llama_vocab_is_eog(self._vocab, token_id))

    def log_probs(self, token_ids: Sequence[int], positions: Sequence[int]) -> NDArray[float32]:
        """Return the log-probabilities of the next token after some positions.

        Args:
            token_ids: a text, evaluated from an empty context.
            positions: rising, of at least one token.

        Returns:
            float32 (position, vocabulary).

        Raises:
            UnavailableError: the evaluation failed.
        """
        import numpy

        self._clear()
        logits = self._logits(token_ids, 0, positions)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= numpy.log(numpy.exp(logits).sum(axis=1, keepdims=True))
        return logits

    def reply(self, token_ids: Sequence[int], limit: int) -> list[int]:
        """Return how the model goes on with a text, greedily: up to an end of generation, or `limit` tokens.

        Raises:
            UnavailableError: the evaluation failed.
        """
        self._clear()
        new = list(token_ids)
        said: list[int] = []
        while len(said) < limit:
            before = len(token_ids) + len(said) - len(new)
            token = int(self._logits(new, before, [len(new) - 1])[0].argmax())
            said.append(token)
            new = [token]
            if self.is_end_of_generation(token):
                break
        return said

    def _clear(self) -> None:
        self._llama.llama_memory_clear(self._llama.llama_get_memory(self._context), True)

    def _logits(self, token_ids: Sequence[int], before: int, positions: Sequence[int]) -> NDArray[float32]:
        """Evaluate tokens after the `before` ones in the context; return the logits (position, vocabulary) of some."""
        import numpy

        llama, count, wanted = self._llama, len(token_ids), set(positions)
        assert wanted and wanted <= set(range(count)), (positions, count)
        assert count <= self._context_tokens - before, (count, before, self._context_tokens)
        rows: list[NDArray[float32]] = []
        batch = llama.llama_batch_init(BATCH_TOKENS, 0, 1)
        try:
            for start in range(0, count, BATCH_TOKENS):
                batch.n_tokens = min(BATCH_TOKENS, count - start)
                for index in range(batch.n_tokens):
                    batch.token[index], batch.pos[index] = token_ids[start + index], before + start + index
                    batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
                    batch.logits[index] = start + index in wanted
                with quiet() as errors:
                    code = llama.llama_decode(self._context, batch)
                if code != 0:
                    raise UnavailableError(f"llama.cpp could not evaluate {count} tokens: {' '.join(errors)}")
                for index in range(batch.n_tokens):
                    if start + index not in wanted:
                        continue
                    pointer = llama.llama_get_logits_ith(self._context, index)
                    rows.append(numpy.ctypeslib.as_array(pointer, (self.vocabulary_size,)).copy())
        finally:
            llama.llama_batch_free(batch)
        return numpy.stack(rows)
