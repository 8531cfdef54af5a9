"""Runs are processes of their own, and nothing is left when the one who asked for them goes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resumecheck.check import Workbench
from resumecheck.errors import UsageError


def processes_below(pid):
    children = [child for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
    return [int(child) for child in children] + [below for child in children for below in processes_below(child)]


def test_a_run_that_is_killed_from_outside_is_an_error_that_says_so(workbench):
    verdict = workbench.verify("tests.targets.sudden:killed_at_step_3", steps=6, at=[4])
    assert verdict.verdict == "error"
    assert "the process was ended by SIGKILL (memory may have run out)" in verdict.error


def test_a_run_that_something_else_has_killed_is_made_again(workbench, tmp_path, monkeypatch):
    monkeypatch.setenv("KILLED_ONCE", str(tmp_path / "marks"))
    with Workbench() as own:  # its servers have the environment of now
        verdict = own.verify("tests.targets.sudden:killed_once", steps=6, at=[3])
    assert verdict.equivalent
    assert (tmp_path / "marks").stat().st_size == len("source resumed ")


@pytest.mark.slow
def test_a_full_disk_ends_the_check_with_a_message_and_leaves_nothing(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by the superuser only")
    try:
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                "resumecheck",
                "verify",
                "tests.targets.plain:build",
                "--steps",
                "10",
                "--at",
                "3,6",
            ],
            env={**os.environ, "TMPDIR": str(small)},
            capture_output=True,
            text=True,
            check=False,
        )
        left = list(small.glob("resumecheck-*"))
    finally:
        subprocess.run(["umount", small], check=True)
    assert ended.returncode == 2
    assert f"MiB are left at {small}" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("Free some space")
    assert "Traceback" not in ended.stderr
    assert not left


def test_global_streams_are_not_shared_between_runs(workbench):
    verdict = workbench.verify("tests.targets.sudden:draws_from_an_unseeded_stream", steps=4, at=[2])
    assert verdict.verdict == "nondeterministic"


def test_when_the_asking_process_dies_no_process_stays(tmp_path):
    script = (
        "import sys, time, threading; from resumecheck.check import Workbench\n"
        "bench = Workbench()\n"
        "threading.Thread(target=bench.reference_run, args=('tests.targets.sudden:never_ends',), kwargs={'steps': 5},"
        " daemon=True).start()\n"
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    below: list[int] = []
    deadline = time.monotonic() + 60
    while len(below) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
        below = processes_below(process.pid)
    assert len(below) >= 2, "the run did not start"
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in below if _alive(pid)]


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_working_directory_is_removed_or_kept_as_asked(tmp_path):
    with Workbench() as bench:
        root = bench.bench.root
        bench.reference_run("tests.targets.plain:build", steps=2)
        assert any(root.iterdir())
    assert not root.exists()
    with Workbench(keep=tmp_path / "kept") as bench:
        bench.reference_run("tests.targets.plain:build", steps=2)
    assert list((tmp_path / "kept").glob("*-reference/steps.jsonl"))
    with pytest.raises(UsageError, match="is not an empty directory"):
        Workbench(keep=tmp_path / "kept")
