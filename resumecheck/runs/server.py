"""A preloaded server: imports torch and transformers once, then forks a fresh process for each run.

It reads one line of JSON per request on stdin (`{"spec": PATH}`), answers one line per start and per end on stdout,
and ends its runs and itself when stdin closes. A run is 0.02 s away instead of the seconds that the imports take. Two
servers with different hash seeds show an order that was taken from a set.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pickle
import select
import signal
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve until stdin closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the business of the process that started us.
    answers = os.dup(1)
    os.dup2(2, 1)
    _preload()
    gc.collect()
    gc.freeze()
    _say(answers, ready=True)
    running: dict[int, str] = {}
    pending = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.01 if running else 1.0)
        if readable:
            received = os.read(0, 65536)
            if not received:
                break
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                path = json.loads(line)["spec"]
                pid = os.fork()
                if pid == 0:
                    os.close(answers)
                    _child(Path(path))
                running[pid] = path
                _say(answers, started=path, pid=pid)
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid in running:
                path = running.pop(pid)
                _say(answers, ended=path, status=os.waitstatus_to_exitcode(status))
                _preload_also(Path(path).parent)
    _end(running)


def _preload() -> None:
    for module in (
        "accelerate",
        "transformers.trainer",
        "transformers.models.bert.modeling_bert",
        "resumecheck.adapters.transformers_trainer",
        "resumecheck.runs.worker",
    ):
        importlib.import_module(module)
    with contextlib.suppress(Exception):  # It is not there before transformers 5.
        # What the first save of a process works out, the same for every model, in 0.1 s.
        importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("bert")


def _preload_also(directory: Path) -> None:
    """Import the framework of a run that has ended: further runs of its target are likely."""
    with contextlib.suppress(Exception):  # a run that has failed may have left no facts
        facts = json.loads((directory / "run.json").read_text(encoding="utf-8"))
        for module in facts.get("frameworks", ()):
            importlib.import_module(module)


def _end(running: dict[int, str]) -> None:
    """Kill the runs, and wait until they are gone: afterwards nothing writes to their directories."""
    for pid in running:
        for kill in (os.killpg, os.kill):  # A run that has just been forked has no process group of its own yet.
            with contextlib.suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)
    for pid in running:
        os.waitpid(pid, 0)


def _say(answers: int, **facts: Any) -> None:
    os.write(answers, (json.dumps(facts) + "\n").encode())


def _child(spec_path: Path) -> None:
    """The forked process: its own process group and output, one run, then gone without running exit handlers."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        log = os.open(spec_path.parent / "output.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from resumecheck.runs.worker import execute

        spec = pickle.loads(spec_path.read_bytes())
        end = execute(spec)
        status = 0 if end.status in ("finished", "stopped") else 1
        gc.collect()  # Loader workers end with their iterators.
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
            import multiprocessing

            for process in multiprocessing.active_children():
                process.kill()
        os._exit(status)


if __name__ == "__main__":
    main()
