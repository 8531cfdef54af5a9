"""The global random streams: Python's, NumPy's and torch's on the CPU and on CUDA. Reading them disturbs nothing."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import xxhash

from resumecheck.state.digest import raw_bytes


def read_streams() -> dict[str, Any]:
    """The state of every global stream by component name; CUDA only where it is already initialised."""
    streams: dict[str, Any] = {
        "rng-python": random.getstate(),
        "rng-numpy": np.random.get_state(),
        "rng-torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        streams["rng-cuda"] = torch.cuda.get_rng_state_all()
    return streams


def set_streams(streams: dict[str, Any]) -> None:
    """Put the given streams (some or all of what `read_streams` returned) in place."""
    if "rng-python" in streams:
        random.setstate(streams["rng-python"])
    if "rng-numpy" in streams:
        np.random.set_state(streams["rng-numpy"])
    if "rng-torch" in streams:
        torch.set_rng_state(streams["rng-torch"])
    if "rng-cuda" in streams and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(streams["rng-cuda"])


def digest_streams() -> dict[str, str]:
    """A digest of every global stream."""
    return {name: _digest(state) for name, state in read_streams().items()}


def _digest(state: Any) -> str:
    hasher = xxhash.xxh3_128()
    for part in state if isinstance(state, tuple | list) else (state,):
        if isinstance(part, torch.Tensor):
            hasher.update(raw_bytes(part))
        elif isinstance(part, np.ndarray):
            hasher.update(part.tobytes())
        else:
            hasher.update(repr(part).encode())
    return f"stream#{hasher.hexdigest()}"
