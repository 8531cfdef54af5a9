"""The preloaded servers and the runs that they execute, seen from the process that asks."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from resumecheck.errors import ResumecheckError
from resumecheck.runs.spec import RunEnd, RunSpec, read_end

#: A server ends its runs and itself when it is told to; it may still be at its imports then.
SECONDS_TO_END = 20

Progress = Callable[[str, int, int], None]


class Pool:
    """Executes run specs, as many at a time as there are `jobs`; a server per hash seed starts when it is needed."""

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = jobs or max(1, min(2, os.cpu_count() or 1))
        self._slots = threading.Semaphore(self.jobs)
        self._servers: dict[int, _Server] = {}
        self._lock = threading.Lock()
        self._closed = False

    def warm(self, *hash_seeds: int) -> None:
        """Start servers ahead of need."""
        for seed in hash_seeds:
            self._server(seed)

    def run(self, spec: RunSpec, name: str, progress: Progress | None = None) -> RunEnd:
        """Execute one run and wait for its end.

        Args:
            spec: what to do; its directory is created.
            name: what progress calls the run.
            progress: called with (name, finished step, step at which the run stops or 0).
        """
        directory = Path(spec.directory)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "spec.pkl"
        path.write_bytes(pickle.dumps(spec))
        with self._slots:
            server = self._server(spec.hash_seed)
            server.start(str(path))
            shown = -1
            while not server.wait(str(path), 0.2):
                if progress is not None:
                    done = _count_rows(directory)
                    if done != shown:
                        shown = done
                        progress(name, done + (spec.resume_step or 0), spec.stop or 0)
            end = read_end(directory)
            if end.status == "died":
                end = dataclasses.replace(end, error=f"{_death(server.status(str(path)))}{end.error}")
            if progress is not None:
                progress(name, end.steps + (spec.resume_step or 0), spec.stop or 0)
        return end

    def _server(self, seed: int) -> _Server:
        with self._lock:
            if self._closed:
                raise ResumecheckError("the check has been ended; no run can be started any more")
            server = self._servers.get(seed)
            if server is None or server.dead:
                server = self._servers[seed] = _Server(seed)
            return server

    def close(self) -> None:
        """End every run and every server; none can be started afterwards."""
        with self._lock:
            self._closed = True
            servers = list(self._servers.values())
            self._servers.clear()
        for server in servers:
            server.close()


class _Server:
    """One server process and the thread that reads its answers."""

    def __init__(self, hash_seed: int) -> None:
        environment = {
            **os.environ,
            "PYTHONHASHSEED": str(hash_seed),
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking for CUDA must not initialise it before the fork
            "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "resumecheck.runs.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._changed = threading.Condition()
        self._ended: dict[str, int] = {}
        self._pids: dict[str, int] = {}
        self.dead = False
        self._complaint: list[str] = []
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()
        threading.Thread(target=self._listen, args=(self.process.stderr,), daemon=True).start()

    def start(self, path: str) -> None:
        """Ask for a run; requests made before the server is ready wait in the pipe."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write((json.dumps({"spec": path}) + "\n").encode())
            self.process.stdin.flush()
        except OSError as error:
            raise self._gone() from error

    def wait(self, path: str, seconds: float) -> bool:
        """Whether the run has ended, waiting for at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: path in self._ended or self.dead, seconds)
            if path in self._ended:
                return True
            if self.dead:
                raise self._gone()
            return False

    def status(self, path: str) -> int:
        """The exit status of a run that has ended; negative where a signal ended it."""
        return self._ended[path]

    def _gone(self) -> ResumecheckError:
        time.sleep(0.1)
        last = " | ".join(self._complaint[-3:])
        return ResumecheckError(f"the process that starts runs has died: {last or 'it left no message'}")

    def _read(self, answers: IO[bytes]) -> None:
        for line in answers:
            facts: dict[str, Any] = json.loads(line)
            with self._changed:
                if "started" in facts:
                    self._pids[facts["started"]] = facts["pid"]
                if "ended" in facts:
                    self._pids.pop(facts["ended"], None)
                    self._ended[facts["ended"]] = facts["status"]
                self._changed.notify_all()
        with self._changed:
            self.dead = True
            self._changed.notify_all()

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._complaint.append(line.decode(errors="replace").strip())
            del self._complaint[:-20]

    def close(self) -> None:
        """Close the pipe, which ends the server and its runs; kill what does not end."""
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            for pid in list(self._pids.values()):
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()


def _death(status: int) -> str:
    """How a process ended that left no word."""
    if status >= 0:
        return f"the process ended with exit status {status}"
    name = signal.Signals(-status).name
    return f"the process was ended by {name}" + (" (memory may have run out)" if name == "SIGKILL" else "")


def _count_rows(directory: Path) -> int:
    """Finished steps so far: rows without the first, which is the start."""
    try:
        with (directory / "steps.jsonl").open("rb") as rows:
            return max(0, sum(1 for _ in rows) - 1)
    except OSError:
        return 0
