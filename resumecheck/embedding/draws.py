"""Random numbers as a pure function of (seed, purpose, epoch, row): nothing to save, nothing to replay on resume.

Philox is a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). Only its raw
64-bit words are used: numpy guarantees those across versions, which it does not for `permutation` or `integers`.
"""

from __future__ import annotations

import numpy as np

#: What a draw is for. Two purposes never share numbers.
ORDER, POSITIVE, NEGATIVES, SHUFFLE, SUBSET, ORDER_IN_POOL, ORDER_OF_BATCHES, EXAMPLES = range(8)


def words(count: int, *, seed: int, purpose: int, epoch: int, row: int = 0) -> np.ndarray:
    """`count` independent uint64 words."""
    key = np.array([seed % 2**64, purpose], dtype=np.uint64)
    counter = np.array([0, 0, row, epoch], dtype=np.uint64)  # the low words count within a draw
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def permutation(size: int, *, seed: int, purpose: int, epoch: int, row: int = 0) -> np.ndarray:
    """The numbers from 0 to `size` - 1 in random order."""
    return np.argsort(words(size, seed=seed, purpose=purpose, epoch=epoch, row=row), kind="stable")


def distinct(drawn: np.ndarray, size: int) -> list[int]:
    """For each word another number below `size`, as drawing without putting back gives them; at most `size` words."""
    taken: list[int] = []
    for word in drawn.tolist():
        number = word % (size - len(taken))
        for before in sorted(taken):  # count on over those that are gone
            number += number >= before
        taken.append(number)
    return taken
