"""Drills: records of random tokens, each shown once and then looked up, over and over, in any order.

A record is a name of two tokens, a mark, what it holds, and a mark. Half of the drills' records hold a value of some
tokens. The others hold fields, as a line of a state does: keys and values that other records share, so that the value
of a key is found by the name some tokens before and not by the key alone. All that can be learnt from drills is to find
what followed the same name before, for every token of the vocabulary. Conversations teach that too, and slowly: most
of their tokens can be guessed without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import torch
from torch import Tensor

from finetune.data.rows import IGNORED


def make_drills(rng: Random, vocabulary: int, rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Return token ids and next-token labels, int64 (row, position); only what can be looked up is trained.

    Args:
        rng: chance.
        vocabulary: tokens to draw from.
        rows: how many drills.
        length: tokens of each; a third of it is records at most.
    """
    token_ids = torch.zeros(rows, length, dtype=torch.long)
    labels = torch.full((rows, length), IGNORED)
    for row in range(rows):
        records = _records(rng, vocabulary, length // 3)
        ids = [token for record in records for token in record]
        trained = [IGNORED] * len(ids)
        while len(ids) < length:
            record = rng.choice(records)
            ids += record
            trained += [IGNORED, *record[2:], IGNORED]
        token_ids[row], labels[row] = torch.tensor(ids[:length]), torch.tensor(trained[:length])
    return token_ids, labels


def _records(rng: Random, vocabulary: int, tokens: int) -> list[list[int]]:
    """Return records of at most so many tokens; names share their parts, so that both parts count."""
    parts = [[rng.randrange(vocabulary) for _ in range(rng.randint(2, 6))] for _ in range(2)]
    names = [[first, second] for first in parts[0] for second in parts[1]]
    rng.shuffle(names)
    mark, end = rng.randrange(vocabulary), rng.randrange(vocabulary)
    holdings = _fields if rng.random() < 0.5 else _values
    records: list[list[int]] = []
    for name, held in zip(names, holdings(rng, vocabulary), strict=False):
        record = [*name, mark, *held, end]
        if sum(map(len, records)) + len(record) > tokens:
            break
        records.append(record)
    return records


def _values(rng: Random, vocabulary: int) -> Iterator[list[int]]:
    while True:
        yield [rng.randrange(vocabulary) for _ in range(rng.randint(1, 4))]


def _fields(rng: Random, vocabulary: int) -> Iterator[list[int]]:
    equals = rng.randrange(vocabulary)
    keys = [rng.randrange(vocabulary) for _ in range(rng.randint(1, 5))]
    values = [[rng.randrange(vocabulary) for _ in range(rng.choice((1, 1, 2)))] for _ in range(rng.randint(2, 6))]
    while True:
        chosen = rng.sample(keys, min(len(keys), rng.randint(1, 2)))
        yield [token for key in chosen for token in (key, equals, *rng.choice(values))]
