"""Processes that train together end well while their last exchange is still under way."""

import os
import subprocess
import sys

import pytest

from tests.embedding.test_exact_resume import TWO_PROCESSES

pytestmark = pytest.mark.slow

TRAINING = """
import atexit, time
import torch, torch.distributed as dist
from resumecheck.embedding.processes import leave

class Last:
    def __del__(self):
        print("the interpreter was taken down", flush=True)

last = Last()
leave(3)  # one process: nothing
dist.init_process_group("gloo")
rank = dist.get_rank()
dist.barrier()
if rank == 0:
    time.sleep(1)  # The other is at its end while it still waits for this one.
exchange = dist.all_reduce(torch.ones(3), async_op=True)
del exchange
atexit.register(print, "registered function of", rank, flush=True)
leave(0)
print("still here")
"""


def test_both_leave_with_their_status_and_what_they_registered(tmp_path):
    (tmp_path / "training.py").write_text(TRAINING, encoding="utf-8")
    command = [sys.executable, "-m", *TWO_PROCESSES[:-1], tmp_path / "training.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"registered function of {rank}" for rank in (0, 1)]
