"""The ids of the samples in each training batch, read where torch's DataLoader asks its sampler for them.

torch's iterators draw each batch's indices from the batch sampler and return batches in that order, with any number of
workers. Two methods of their base class are wrapped in the run's process; training iterators are those over the data
set of the training loader. Nothing is drawn or consumed in addition.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Generator
from typing import Any

from torch.utils.data import dataloader as torch_dataloader


class LoaderIds:
    """A queue of sample ids, a list for each batch that a training iterator has handed out."""

    def __init__(self) -> None:
        self._datasets: list[Any] = []
        self._handed_out: collections.deque[list[Any] | None] = collections.deque()
        self._current: collections.deque[Any] | None = None
        self._paused = 0
        self.on_training_iterator: Callable[[], None] = lambda: None
        self._originals: dict[tuple[Any, str], Any] = {}

    def watch(self, loader: Any) -> None:
        """Recognise iterators over this loader's data set as training iterators."""
        dataset = getattr(loader, "dataset", None)
        if dataset is not None:
            self._datasets.append(dataset)

    @contextlib.contextmanager
    def paused(self) -> Generator[None]:
        """Iterators made in here are not training iterators."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def next_ids(self) -> list[Any] | None:
        """The ids of the batch that the trainer uses next, None where they are not known."""
        return self._handed_out.popleft() if self._handed_out else None

    def recognises(self, loader: Any) -> bool:
        """Whether an iterator over this loader is a training iterator."""
        return not self._paused and any(loader.dataset is dataset for dataset in self._datasets)

    def starts(self, iterator: Any, loader: Any) -> None:
        """A training iterator is made."""
        self.on_training_iterator()
        self._current = iterator._resumecheck_drawn = collections.deque()
        self._handed_out.clear()

    def hands_out(self, iterator: Any, batch: Any, ids: list[Any] | None) -> None:
        """A training iterator returns a batch."""
        if iterator._resumecheck_drawn is self._current:
            self._handed_out.append(ids)

    def install(self) -> None:
        """Wrap the base class of torch's loader iterators, in this process."""
        base: Any = torch_dataloader._BaseDataLoaderIter
        original_init, original_reset = base.__init__, torch_dataloader._MultiProcessingDataLoaderIter._reset
        original_index, original_next = base._next_index, base.__next__
        ids = self

        def init(iterator: Any, loader: Any) -> None:
            if ids.recognises(loader):
                ids.starts(iterator, loader)
            original_init(iterator, loader)

        def reset(iterator: Any, loader: Any, first_iter: bool = False) -> None:
            # Persistent workers: the iterator of the last epoch is used again.
            if not first_iter and ids.recognises(loader):
                ids.starts(iterator, loader)
            original_reset(iterator, loader, first_iter)

        def next_index(iterator: Any) -> Any:
            index = original_index(iterator)
            drawn = getattr(iterator, "_resumecheck_drawn", None)
            if drawn is not None:
                drawn.append(index)
            return index

        def next_batch(iterator: Any) -> Any:
            batch = original_next(iterator)
            drawn = getattr(iterator, "_resumecheck_drawn", None)
            if drawn is not None:
                ids.hands_out(iterator, batch, _plain_ids(drawn.popleft()) if drawn else None)
            return batch

        with_workers = torch_dataloader._MultiProcessingDataLoaderIter
        methods = {
            (base, "__init__"): init,
            (with_workers, "_reset"): reset,
            (base, "_next_index"): next_index,
            (base, "__next__"): next_batch,
        }
        for (owner, name), method in methods.items():
            self._originals[owner, name] = getattr(owner, name)
            setattr(owner, name, method)

    def uninstall(self) -> None:
        """Give torch's loader iterators their own methods back; what was wrapped later is taken away with it."""
        for (owner, name), method in self._originals.items():
            setattr(owner, name, method)
        self._originals.clear()


def _plain_ids(index: Any) -> list[Any] | None:
    """Ids as JSON holds them; an iterable data set has none."""
    if not isinstance(index, list | tuple) or any(item is None for item in index):
        return None
    return [item if isinstance(item, int | str) else str(item) for item in index]
