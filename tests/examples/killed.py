"""Train and be killed: `python -m tests.examples.killed STEP train.py OPTIONS` or `... STEP resumecheck train OPTIONS`.

The process gets SIGKILL when the Trainer has done that optimizer step, as from a scheduler or for lack of memory.
"""

import os
import runpy
import signal
import sys

import transformers.trainer


class Killed(transformers.TrainerCallback):
    """Ends the process at a step."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == STEP:
            os.kill(os.getpid(), signal.SIGKILL)


def main():
    """Start the script, or the command, in a child: only the child is killed."""
    child = os.fork()
    if child:
        _child, status = os.waitpid(child, 0)
        return 0 if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else 1
    transformers.trainer.DEFAULT_CALLBACKS.append(Killed)
    if sys.argv[0] == "resumecheck":
        from resumecheck.cli import main as run

        return run(sys.argv[1:])
    sys.path.insert(0, os.getcwd())
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 1


if __name__ == "__main__":
    STEP = int(sys.argv[1])
    sys.argv = sys.argv[2:]
    sys.exit(main())
