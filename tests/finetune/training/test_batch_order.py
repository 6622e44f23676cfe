"""Batches of rows that start alike."""

from __future__ import annotations

from finetune.data.encoded_rows import EncodedRows
from finetune.data.rows import IGNORED
from finetune.training.batch_order import BatchOrder, runs_of


def rows(*prompts: list[int]) -> EncodedRows:
    token_ids = tuple([*prompt, 1, 2] for prompt in prompts)
    labels = tuple([IGNORED] * len(prompt) + [1, 2] for prompt in prompts)
    return EncodedRows(token_ids, labels, dropped=0)


def test_rows_that_follow_each_other_and_start_alike_are_a_run() -> None:
    state, other = list(range(50)), [7] * 50
    assert runs_of(rows([*state, 3], [*state, 4, 5], other, [*other, 9], state)) == [[0, 1], [2, 3], [4]]


def test_batches_are_of_one_run_and_the_rest_follows_by_length() -> None:
    runs = [list(range(11)), list(range(11, 19)), [19], [20]]
    lengths = [100 + row % 7 for row in range(21)]
    order = list(BatchOrder(runs, lengths, 4, seed=1))
    assert sorted(order) == list(range(21))
    batches = [set(order[start : start + 4]) for start in range(0, 21, 4)]
    whole = [batch for batch in batches if any(batch <= set(run) for run in runs)]
    assert len(whole) >= 4 and len(batches[-1]) == 1


def test_the_order_is_that_of_seed_and_epoch() -> None:
    def order(epoch: int) -> list[int]:
        made = BatchOrder([list(range(40)), [40, 41, 42]], [5] * 43, 4, seed=1)
        made.set_epoch(epoch)
        return list(made)

    assert order(0) == order(0) != order(1)
