"""The end of a process that is one of several."""

from __future__ import annotations

import atexit
import os
import sys

import torch.distributed as dist


def leave(status: int) -> None:
    """End this process with `status` if it is one of several that train together; else do nothing.

    What is registered with `atexit` runs; the interpreter itself is not taken down. A thread of gloo that has still to
    let go of a tensor needs the interpreter for it: one that is being taken down aborts the process (SIGABRT, and
    torchrun calls the run failed), and destroying the process group first can wait for that thread while holding the
    lock that it needs. Both were seen with torch 2.13, at the end of runs that had written everything.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
