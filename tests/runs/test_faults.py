"""Events in files: each is seen once, a death comes before or in the middle of the one that is meant, and is noted."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from resumecheck.runs.faults import FileEvents, tear
from tests.embedding import forks

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are named by /proc")


def write_text(root):
    (root / "a.txt").write_text("0123456789")


def write_and_sync(root):
    with open(root / "a.txt", "w") as stream:
        stream.write("01234")
        stream.write("56789")
        stream.flush()
        os.fsync(stream.fileno())


def replace(root):
    (root / "a.txt").write_text("0123456789")
    os.replace(root / "a.txt", root / "b.txt")


def low_level(root):
    descriptor = os.open(root / "a.txt", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"01234")
    os.write(descriptor, b"56789")
    os.close(descriptor)


def named_temporary(root):
    with tempfile.NamedTemporaryFile("w", dir=root, delete=False, prefix="a") as stream:
        stream.write("0123456789")
    os.rename(stream.name, root / "a.txt")


def directories(root):
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "sub").mkdir(exist_ok=True)
    (root / "sub" / "deep" / "a.txt").write_text("0")
    shutil.rmtree(root / "sub")


def copied(root):
    shutil.copyfile(root / "old.txt", root / "a.txt")


def appended(root):
    with open(root / "old.txt", "a") as stream:
        stream.write("xxxx")


def written_by_another_program(root):
    subprocess.run(["cp", root / "old.txt", root / "a.txt"], check=True)
    (root / "b.txt").write_text("0")


def outside(root):
    (root.parent / "elsewhere.txt").write_text("0")
    (root / "old.txt").read_text()


#: What a process does -> the events, those that tear with a star.
EVENTS = {
    write_text: ["create a.txt", "write* a.txt"],
    write_and_sync: ["create a.txt", "write* a.txt", "sync* a.txt"],
    replace: ["create a.txt", "write* a.txt", "rename a.txt"],
    low_level: ["create a.txt", "write* a.txt"],
    directories: [
        "mkdir sub", "mkdir sub/deep", "create sub/deep/a.txt", "write* sub/deep/a.txt",
        "remove sub/deep/a.txt", "rmdir sub/deep", "rmdir sub",
    ],
    copied: ["create a.txt", "write* a.txt"],
    appended: ["write* old.txt"],
    written_by_another_program: ["write* a.txt", "create b.txt", "write* b.txt"],
    outside: [],
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Run an action in a process of its own, with its events counted: status, what was noted, what the files hold."""

    def watched(action, die_at=None, torn=False):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old.txt").write_text("old text")

        def counted():
            events = FileEvents(tmp_path / "out", die_at, torn, record=tmp_path / "noted.json")
            action(tmp_path / "out")
            events.stop()

        status = forks.run(counted)
        files = {
            path.name: path.read_text(encoding="latin-1") for path in (tmp_path / "out").rglob("*") if path.is_file()
        }
        return status, json.loads((tmp_path / "noted.json").read_text()), files

    return watched


@pytest.mark.parametrize("action", EVENTS, ids=lambda action: action.__name__)
def test_each_event_is_seen_once(run, action):
    status, noted, _ = run(action)
    assert status == 0
    assert [f"{kind}{'*' if tears else ''} {path}" for kind, path, tears in noted] == EVENTS[action]


@pytest.mark.parametrize("action", EVENTS, ids=lambda action: action.__name__)
def test_each_event_can_be_the_death_of_a_process(run, action):
    for number, event in enumerate([*EVENTS[action], "end ."], 1):
        for torn in (False, True)[: 1 + ("*" in event)]:
            status, (kind, path, _), _ = run(action, number, torn)
            assert forks.was_killed(status)
            assert f"{kind} {path}" == event.replace("*", "")


@pytest.mark.parametrize("action", [write_text, write_and_sync, low_level], ids=lambda action: action.__name__)
def test_a_write_is_not_begun_or_torn_in_its_middle(run, action):
    assert run(action, 1)[2] == {"old.txt": "old text"}
    assert run(action, 2)[2] == {"old.txt": "old text", "a.txt": ""}
    assert run(action, 2, torn=True)[2] == {"old.txt": "old text", "a.txt": "01234"}


def test_what_comes_before_a_rename_is_there_as_a_whole(run):
    assert run(replace, 3)[2] == {"old.txt": "old text", "a.txt": "0123456789"}
    assert run(replace, 4)[2] == {"old.txt": "old text", "b.txt": "0123456789"}


def test_only_what_was_appended_is_torn(run):
    assert run(appended, 1)[2] == {"old.txt": "old text"}
    assert run(appended, 1, torn=True)[2] == {"old.txt": "old textxx"}


def test_a_file_of_another_program_is_absent_torn_or_whole(run):
    assert run(written_by_another_program, 1)[2] == {"old.txt": "old text"}
    assert run(written_by_another_program, 1, torn=True)[2] == {"old.txt": "old text", "a.txt": "old "}
    assert run(written_by_another_program, 2)[2] == {"old.txt": "old text", "a.txt": "old text"}


def test_a_temporary_file_is_seen_under_its_own_name(run):
    status, noted, files = run(named_temporary)
    assert (status, files["a.txt"]) == (0, "0123456789")
    assert [kind for kind, _, _ in noted] == ["create", "write", "rename"]
    assert len({path for _, path, _ in noted}) == 1


def test_torch_and_safetensors_write_a_file_in_one_event(run):
    def save(root):
        torch.save({"a": torch.zeros(3)}, root / "a.pt")
        save_file({"a": torch.zeros(3)}, root / "b.safetensors")
        with open(root / "c.pt", "wb") as stream:
            torch.save({"a": torch.zeros(3)}, stream)

    status, noted, files = run(save)
    assert status == 0
    assert [f"{kind} {path}" for kind, path, _ in noted] == [
        "write a.pt", "write b.safetensors", "create c.pt", "write c.pt",
    ]  # fmt: skip
    for number, name in ((1, "a.pt"), (2, "b.safetensors"), (4, "c.pt")):
        status, _, torn = run(save, number, torn=True)
        assert forks.was_killed(status)
        assert len(torn[name]) == len(files[name]) // 2


@pytest.mark.parametrize(("size", "start", "left"), [(10, 0, 5), (10, 4, 7), (4, 4, 4), (0, 0, 0), (1, 0, 0)])
def test_half_of_what_was_written_is_left(tmp_path, size, start, left):
    file = Path(tmp_path, "file")
    file.write_bytes(b"x" * size)
    tear(file, start)
    assert file.stat().st_size == left
