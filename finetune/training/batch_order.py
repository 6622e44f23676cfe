"""The order in which training sees rows: batches of rows that start alike, so that their start is evaluated once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from edge_agent.engine.engine import common_length
from finetune.data.encoded_rows import EncodedRows
from finetune.data.rows import prompt_length

ALIKE_SHARE = 0.9  # of the shorter of two prompts, before the first trained token


def runs_of(rows: EncodedRows) -> list[list[int]]:
    """Return the places of rows that follow each other and start alike, run by run; a run may have one row."""
    runs: list[list[int]] = []
    prompts = [prompt_length(labels) for labels in rows.labels]
    for place, ids in enumerate(rows.token_ids):
        first = runs[-1][0] if runs else place
        shorter = min(prompts[first], prompts[place])
        if runs and common_length(rows.token_ids[first], ids) >= ALIKE_SHARE * shorter:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


class BatchOrder(torch.utils.data.Sampler[int]):
    """Batches of one run, and of like length; what does not fill a batch goes with other rows of like length.

    Seed and epoch alone decide the order: a resumed run keeps it.
    """

    def __init__(self, runs: Sequence[Sequence[int]], lengths: Sequence[int], batch_rows: int, seed: int) -> None:
        """Args: lengths: tokens by row; batch_rows: rows of a batch."""
        self._runs, self._lengths, self._batch_rows, self._seed, self._epoch = runs, lengths, batch_rows, seed, 0

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        batches: list[list[int]] = []
        rest: list[int] = []
        for run in self._runs:
            by_length = sorted(run, key=self._lengths.__getitem__)
            whole = len(run) - len(run) % self._batch_rows
            batches += self._cut(by_length[:whole])
            rest += by_length[whole:]
        if rest:
            lengths = [self._lengths[row] for row in rest]
            order = get_length_grouped_indices(lengths, self._batch_rows, generator=generator)
            batches += self._cut([rest[index] for index in order])
        last = [batches.pop()] if len(batches[-1]) < self._batch_rows else []
        shuffled = [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]
        return (row for batch in shuffled + last for row in batch)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at the start of each epoch."""
        self._epoch = epoch

    def _cut(self, rows: Sequence[int]) -> list[list[int]]:
        return [list(rows[start : start + self._batch_rows]) for start in range(0, len(rows), self._batch_rows)]
