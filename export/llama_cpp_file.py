"""The one file of this package that opens GGUF files by llama.cpp; its quantizers are in quantize/quantize.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from devices.errors import UnavailableError, UsageError
from edge_agent.engine.gguf_header import require_gguf

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

BATCH_TOKENS = 512
THREADS = 4  # ggml.h, GGML_DEFAULT_N_THREADS: on two busy cores quicker than two threads


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
        from edge_agent.engine.autotune import Tuning
        from edge_agent.engine.llama_cpp_model import LlamaModel

        require_gguf(path)
        self._model, self._context_tokens = LlamaModel(), context_tokens
        self.tokenize, self.is_end_of_generation = self._model.tokenize, self._model.is_end_of_generation
        try:
            self._model.load(path)
            self._model.make_context(context_tokens, Tuning(threads=THREADS, batch_tokens=BATCH_TOKENS))
            if adapter:
                self._model.apply_adapter(adapter)
            self.vocabulary_size = self._model.vocabulary_size
        except BaseException as error:
            self.close()
            if isinstance(error, UsageError):  # nobody named this file: the export made it
                raise UnavailableError(str(error)) from error
            raise

    def __enter__(self) -> LlamaFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model."""
        self._model.close()

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

        self._model.clear()
        logits = self._logits(token_ids, 0, positions)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= numpy.log(numpy.exp(logits).sum(axis=1, keepdims=True))
        return logits

    def reply(self, token_ids: Sequence[int], limit: int) -> list[int]:
        """Return how the model goes on with a text, greedily: up to an end of generation, or `limit` tokens.

        Raises:
            UnavailableError: the evaluation failed.
        """
        self._model.clear()
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

    def _logits(self, token_ids: Sequence[int], before: int, positions: Sequence[int]) -> NDArray[float32]:
        """Evaluate tokens after the `before` ones in the context; return the logits (position, vocabulary) of some."""
        import numpy

        count = len(token_ids)
        assert positions and set(positions) <= set(range(count)), (positions, count)
        assert count <= self._context_tokens - before, (count, before, self._context_tokens)
        rows: list[NDArray[float32]] = []
        for start in range(0, count, BATCH_TOKENS):
            wanted = [position - start for position in positions if start <= position < start + BATCH_TOKENS]
            self._model.decode([(0, before + start, list(token_ids[start : start + BATCH_TOKENS]), wanted)])
            rows += [self._model.logits(index).copy() for index in wanted]
        return numpy.stack(rows)
