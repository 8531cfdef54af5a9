"""Several processes of a run, as torchrun starts them, as forks of one that has imported everything."""

import os
import signal
import time
from pathlib import Path

from tests.embedding import forks

WORLD_SIZE = 2
#: Seconds after which torchrun notices that a process has failed.
MONITOR_INTERVAL = 0.1


def start(action, rendezvous: Path, world_size: int = WORLD_SIZE) -> list[int]:
    """Run `action(rank)` in a process for each rank, joined by gloo; returns their ids."""
    rendezvous.unlink(missing_ok=True)
    return [forks.start(lambda rank=rank: _join(rank, rendezvous, action, world_size)) for rank in range(world_size)]


def _join(rank, rendezvous, action, world_size):
    import torch.distributed as dist

    size = {"WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    own = {"RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}
    os.environ.update({name: str(value) for name, value in {**size, **own, "OMP_NUM_THREADS": 1}.items()})
    # A file in the place of torchrun's server: no port that two tests could both want.
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    return action(rank)


def wait(pids: list[int]) -> list[int]:
    """The exit statuses by rank. Once one process has failed the others are killed, as torchrun does."""
    statuses: dict[int, int] = {}
    while len(statuses) < len(pids):
        pid, status = os.waitpid(-1, 0)
        if pid not in pids:
            continue
        statuses[pid] = os.waitstatus_to_exitcode(status)
        if statuses[pid] != 0:
            time.sleep(MONITOR_INTERVAL)  # in which the others go on with what they do, or meet the broken connection
            for other in set(pids) - statuses.keys():
                os.kill(other, signal.SIGKILL)
    return [statuses[pid] for pid in pids]


def run(action, rendezvous: Path, world_size: int = WORLD_SIZE) -> list[int]:
    """`start` and `wait`."""
    return wait(start(action, rendezvous, world_size))
