"""What a loop of one's own does, seen where every loop passes: torch's loaders, modules, backward and optimizers.

A loop announces nothing but the end of a step. So functions and classes that any loop calls are wrapped, in the run's
process and never on the loop's own objects: those are copied, pickled and walked by the target.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Generator, Mapping
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from resumecheck.adapters.loader_ids import LoaderIds


class LoaderBatches(LoaderIds):
    """The batch that a loader of torch or accelerate has handed out last, and the ids of its samples."""

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[Any, list[Any] | None] | None = None
        self._fresh = False
        self._ids_of: dict[int, collections.deque[list[Any] | None]] = {}

    def take(self) -> tuple[Any, list[Any] | None]:
        """The batch in use and its ids; of a batch that was taken before nothing and no further ids."""
        if self._last is None:
            return None, None
        fresh, self._fresh = self._fresh, False
        return self._last if fresh else (None, [])

    def recognises(self, loader: Any) -> bool:
        """Every loader of the process: an evaluation's batches are overwritten before the next forward."""
        return True

    def starts(self, iterator: Any, loader: Any) -> None:
        """An iterator over `loader` is made."""
        super().starts(iterator, loader)
        iterator._resumecheck_ids = self._ids_of[id(loader)] = collections.deque()

    def hands_out(self, iterator: Any, batch: Any, ids: list[Any] | None) -> None:
        """An iterator of torch returns a batch."""
        iterator._resumecheck_ids.append(ids)
        self._last, self._fresh = (batch, ids), True

    def install(self) -> None:
        """Wrap the iterators of torch, and accelerate's loader, which asks them for one batch more than it gives."""
        super().install()
        from accelerate.data_loader import DataLoaderShard

        original: Callable[[Any], Generator[Any]] = DataLoaderShard.__iter__
        batches = self

        def iterate(loader: Any) -> Generator[Any]:
            skipped = loader.skip_batches
            inner = id(getattr(loader, "base_dataloader", loader))
            for batch in original(loader):
                ids = batches._ids_of.get(inner, collections.deque())
                for _ in range(min(skipped, len(ids))):
                    ids.popleft()
                skipped = 0
                batches._last, batches._fresh = (batch, ids.popleft() if ids else None), True
                yield batch

        DataLoaderShard.__iter__ = iterate  # ty: ignore[invalid-assignment]


class LoopHooks:
    """Calls back where a loop goes forward, backward and updates.

    Args:
        models: the trained models, as they are now.
        forward: called with (args, kwargs) before a model is called in training; returns what to call it with.
        backward: called with the loss before its backward.
        update: called with the optimizer before it updates.
    """

    def __init__(
        self,
        models: Callable[[], Mapping[str, torch.nn.Module]],
        forward: Callable[[tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]],
        backward: Callable[[torch.Tensor], None],
        update: Callable[[torch.optim.Optimizer], None],
    ) -> None:
        self.forward = forward
        self.backward = backward
        self.update = update
        self._models = models
        self._known: set[int] = set()
        self._inside = False

    def look_again(self) -> None:
        """Find the models again: loading may have replaced them."""
        self._known = {id(model) for model in self._models().values()}

    def install(self) -> None:
        """Wrap, in this process."""
        self.look_again()
        hooks = self
        module: Any = torch.nn.Module
        autograd: Any = torch.autograd
        original_call, original_backward = module.__call__, autograd.backward

        @functools.wraps(original_call)
        def call(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            if id(self) not in hooks._known or hooks._inside or not (self.training and torch.is_grad_enabled()):
                return original_call(self, *args, **kwargs)
            args, kwargs = hooks.forward(args, kwargs)
            hooks._inside = True
            try:
                return original_call(self, *args, **kwargs)
            finally:
                hooks._inside = False

        @functools.wraps(original_backward)
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(tensors, torch.Tensor) and tensors.numel() == 1:
                hooks.backward(tensors.detach())
            return original_backward(tensors, *args, **kwargs)

        module.__call__ = call
        autograd.backward = backward
        register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: hooks.update(optimizer))


def put_batch(own: Any, stored: Any) -> None:
    """Give the tensors of a batch the content of a stored one, in place: the loop may hold them by any name."""
    if isinstance(own, torch.Tensor) and isinstance(stored, torch.Tensor):
        if own is not stored:
            own.data = stored.to(own.device)
    elif isinstance(own, Mapping) and isinstance(stored, Mapping):
        for name in own:
            put_batch(own[name], stored.get(name))
    elif isinstance(own, list | tuple) and isinstance(stored, list | tuple):
        for mine, theirs in zip(own, stored, strict=False):
            put_batch(mine, theirs)


def content_of(args: tuple[Any, ...], kwargs: dict[str, Any], batch: Any) -> dict[str, Any]:
    """What arrives at the model, and of the loader's batch what is not among it (the labels of a loss outside)."""
    content: dict[str, Any] = {str(index): value for index, value in enumerate(args)} | kwargs
    given = {id(tensor) for tensor in _tensors(content)}
    if any(id(tensor) not in given for tensor in _tensors(batch)):
        content["batch"] = batch
    return content


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [tensor for item in items for tensor in _tensors(item)]
