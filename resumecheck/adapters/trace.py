"""Inside one step: digests of every module's input and output, and of the gradients, in the order in which they come.

Two traces of the same step of two runs tell the first module whose inputs agree and whose output differs. Modules are
recorded when they return, so a module comes before the one that holds it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from resumecheck.state.digest import digest, tensor_digest


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a step parts: `forward`, `loss` or `backward`, the name of the module or gradient, what was seen there."""

    direction: str
    name: str
    what: str

    @property
    def words(self) -> str:
        """For a report."""
        if self.direction == "forward":
            return f"the first module whose inputs agree and whose output differs is {self.name}"
        if self.direction == "loss":
            return "every module's output agrees, so what differs is the computation of the loss from them"
        return f"going backward, the first gradient that differs is {self.what} {self.name}"


class StepTrace:
    """Records one step of a live model; `close` takes every hook away again."""

    def __init__(self, models: dict[str, torch.nn.Module]) -> None:
        self.forward: list[tuple[str, str, str]] = []
        self.backward: list[tuple[str, str, str]] = []
        self._handles: list[Any] = []
        for model_name, model in models.items():
            for name, module in model.named_modules():
                label = name or model_name
                hook = functools.partial(self._returned, label)
                self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    self._handles.append(parameter.register_hook(functools.partial(self._gradient, name, "of")))

    def _returned(self, name: str, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        self.forward.append((name, digest([args, kwargs]), digest(output)))
        for tensor in _tensors(output):
            if tensor.requires_grad:
                tensor.register_hook(functools.partial(self._gradient, name, "at the output of"))

    def _gradient(self, name: str, what: str, gradient: torch.Tensor) -> None:
        self.backward.append((name, what, tensor_digest(gradient)))

    def close(self, path: Path) -> None:
        """Take the hooks away and write what was recorded."""
        for handle in self._handles:
            handle.remove()
        path.write_text(json.dumps({"forward": self.forward, "backward": self.backward}), encoding="utf-8")


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def first_place(expected: Path, got: Path) -> Place | None:
    """Where two traces of one step part; None where they do not, or where modules are called in another order."""
    try:
        before, now = (json.loads(path.read_text(encoding="utf-8")) for path in (expected, got))
    except (OSError, ValueError):
        return None
    for (name, inputs, output), (other_name, other_inputs, other_output) in zip(
        before["forward"], now["forward"], strict=False
    ):
        if name != other_name:
            return None
        if inputs == other_inputs and output != other_output:
            return Place("forward", name, "output")
    if [call[2] for call in before["forward"]] != [call[2] for call in now["forward"]]:
        return None
    for (name, what, text), (other_name, other_what, other_text) in zip(
        before["backward"], now["backward"], strict=False
    ):
        if (name, what) != (other_name, other_what):
            return None
        if text != other_text:
            return Place("backward", name, "the gradient " + what)
    return None
