"""State of the whole process that a target can set: environment variables, and how torch computes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

#: The environment before any target ran: variables that it holds are not a target's state, and may be secrets.
_ENVIRONMENT = dict(os.environ)

#: How paths of environment variables begin.
VARIABLE = "environment."


def process_state() -> Iterator[tuple[str, Any, Callable[[Any], None]]]:
    """(path, value, setter) of every setting; of the environment only what was set since the process began."""
    for name, value in os.environ.items():
        if _ENVIRONMENT.get(name) != value:
            yield f"{VARIABLE}{name}", value, functools.partial(set_variable, name)
    for name, (read, write) in _TORCH.items():
        yield f"torch.{name}", read(), write


def set_variable(name: str, value: str | None) -> None:
    """Set an environment variable, or remove it."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _write_dtype(name: str) -> None:
    torch.set_default_dtype(getattr(torch, name))


_TORCH: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "default_dtype": (lambda: str(torch.get_default_dtype()).removeprefix("torch."), _write_dtype),
    "num_threads": (torch.get_num_threads, torch.set_num_threads),
    "grad_enabled": (torch.is_grad_enabled, torch._C._set_grad_enabled),
    "float32_matmul_precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "deterministic_algorithms": (
        torch.are_deterministic_algorithms_enabled,
        functools.partial(torch.use_deterministic_algorithms, warn_only=True),
    ),
    "backends.cudnn.benchmark": (
        lambda: torch.backends.cudnn.benchmark,
        functools.partial(setattr, torch.backends.cudnn, "benchmark"),
    ),
    "backends.cudnn.deterministic": (
        lambda: torch.backends.cudnn.deterministic,
        functools.partial(setattr, torch.backends.cudnn, "deterministic"),
    ),
    "autocast_cpu": (
        lambda: torch.is_autocast_enabled("cpu"),
        functools.partial(torch.set_autocast_enabled, "cpu"),
    ),
}
