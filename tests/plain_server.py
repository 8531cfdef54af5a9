"""Runs of training by plain processes, independent of resumecheck's engine: what a check is held against.

A `PlainServer` is a process that has imported torch and transformers and forks another for each request. A request and
its answer are a pickle each, on the server's standard input and output.
"""

import contextlib
import gc
import importlib
import os
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


class PlainServer:
    """A preloaded server.

    `action` (`pkg.module:function`) is called with the arguments of a request, in a process of its own; `modules` are
    imported before, beside transformers' Trainer and accelerate.
    """

    def __init__(self, action, *modules, **environment):
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve({action!r}, {modules!r})"],
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, *request):
        """(what the action returned, ""), or (None, how its process died)."""
        with self._lock:
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
            try:
                return pickle.load(self._process.stdout)
            except EOFError:
                raise RuntimeError(f"the server died on {request}") from None

    def close(self):
        """Close the pipe, which ends the server."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve(action, modules):
    """Fork a process for each request until stdin closes."""
    import torch

    for name in ("transformers.trainer", "accelerate", *modules):
        importlib.import_module(name)
    torch.set_num_threads(1)
    # A run collects garbage when training starts; it need not walk, and so copy, what was imported here.
    gc.collect()
    gc.freeze()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _answer(action, request, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        answers.write(answer or pickle.dumps((None, f"died with status {status}")))
        answers.flush()


def _answer(action, request, writing):
    try:
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            _seed_at_random()
            module, _, name = action.partition(":")
            result = getattr(importlib.import_module(module), name)(*request)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump((result, ""), pipe)
    finally:
        os._exit(0)


def _seed_at_random():
    """Nothing may be inherited from the server: what a target does not seed or restore differs in each process."""
    import numpy
    import torch

    random.seed(os.urandom(16))
    numpy.random.seed(int.from_bytes(os.urandom(4), "big"))
    torch.manual_seed(int.from_bytes(os.urandom(7), "big"))
