"""Processes that start in a moment: forks of one that has imported everything."""

import os
import signal
import sys
import traceback


def start(action):
    """Run `action` in a forked child, which ends with its result as exit status (0 for None); returns its id."""
    sys.stdout.flush(), sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        import torch

        torch.set_num_threads(1)  # or the sums of a run would depend on what its parent did
        status = action() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def wait(pid):
    """The exit status of a child, negative where a signal has ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(action):
    """`start` and `wait`."""
    return wait(start(action))


def was_killed(status):
    return status == -signal.SIGKILL
