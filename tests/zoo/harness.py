"""A plain harness for the zoo, independent of resumecheck's engine: fresh processes, final weights, nothing else.

`python -m tests.zoo.harness` is a server that has imported torch and transformers; it forks a process for each request
(one line of JSON on stdin) and answers with what the run ended with (one line of JSON on stdout).
"""

import contextlib
import dataclasses
import gc
import hashlib
import importlib
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class End:
    """How a run ended: a digest of all parameters and buffers, steps by two counts, the error if it died."""

    weights: str
    global_step: int
    steps_run: int
    error: str = ""

    @property
    def result(self):
        """What two runs are compared by."""
        return self.weights, self.global_step


class Server:
    """A preloaded server with one hash seed."""

    def __init__(self, hash_seed):
        environment = os.environ | {
            "PYTHONHASHSEED": str(hash_seed),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        command = [sys.executable, "-m", "tests.zoo.harness"]
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, target, output_dir, *, save_at=(), resume_from=None):
        """Run a target to its end in a fresh process."""
        request = {
            "target": target,
            "output_dir": str(output_dir),
            "save_at": list(save_at),
            "resume_from": None if resume_from is None else str(resume_from),
        }
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the server died on {request}")
        return End(**json.loads(answer))

    def close(self):
        """Close the pipe, which ends the server."""
        self._process.stdin.close()
        self._process.wait()


def serve():
    """Fork a process for each request until stdin closes."""
    import torch

    for name in (
        "transformers.trainer",
        "transformers.models.bert.modeling_bert",
        "accelerate",
        "resumecheck.zoo.setups",
    ):
        importlib.import_module(name)
    torch.set_num_threads(1)
    # A run collects garbage when training starts; it need not walk, and so copy, what was imported here.
    gc.collect()
    gc.freeze()
    answers = os.dup(1)
    os.dup2(2, 1)
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _answer(json.loads(line), writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        died = {"weights": "", "global_step": -1, "steps_run": -1, "error": f"died with status {status}"}
        os.write(answers, (answer or json.dumps(died).encode()) + b"\n")


def _answer(request, writing):
    try:
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            end = _train(**request)
        os.write(writing, json.dumps(end).encode())
    finally:
        os._exit(0)


def _train(target, output_dir, save_at, resume_from):
    import numpy
    import torch

    # Nothing may be inherited from the server: what a target does not seed or restore is different in each process.
    random.seed(os.urandom(16))
    numpy.random.seed(int.from_bytes(os.urandom(4), "big"))
    torch.manual_seed(int.from_bytes(os.urandom(7), "big"))
    module, name = target.split(":")
    trainer = getattr(importlib.import_module(module), name)(output_dir)
    watch = _watch(set(save_at))
    trainer.add_callback(watch)
    error = ""
    try:
        trainer.train(resume_from_checkpoint=resume_from)
    except Exception as exception:
        error = f"{type(exception).__name__}: {exception}"
    return {
        "weights": _digest(trainer.model),
        "global_step": trainer.state.global_step,
        "steps_run": watch.steps,
        "error": error,
    }


def _watch(save_at):
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        steps = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.steps += 1
            if state.global_step in save_at:
                control.should_save = True

    return Watch()


def _digest(model):
    """Over names, types, shapes and bytes of every parameter and buffer; tied ones count under each name."""
    import torch

    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + raw.numpy().tobytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    serve()
