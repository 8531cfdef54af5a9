"""A checkpoint is complete or not there, whatever happens to its files and whenever its process dies."""

import json
import os
import signal
import sys

import pytest

from resumecheck.embedding import checkpoint
from resumecheck.errors import UsageError
from tests.embedding.test_checkpoint import FILES, save, write

# --- damage ----------------------------------------------------------------------------------------------------------


def remove(path):
    path.unlink()


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.fixture
def run(tmp_path):
    for step in (4, 8):
        save(tmp_path / "out", step)
    return tmp_path / "out"


@pytest.mark.parametrize("damage", [remove, cut_short, flip_a_bit, empty])
@pytest.mark.parametrize("name", [*FILES, checkpoint.MANIFEST])
def test_a_damaged_file_is_refused_by_name_and_latest_falls_back(run, name, damage):
    damage(run / "checkpoint-8" / name)
    with pytest.raises(UsageError) as error:
        checkpoint.find_checkpoint(str(run / "checkpoint-8"), run)
    assert str(error.value).startswith(f"--resume_from_checkpoint {run / 'checkpoint-8'}: {name} ")
    assert f"--resume_from_checkpoint {run / 'checkpoint-4'}" in str(error.value)
    assert checkpoint.find_checkpoint("latest", run) == run / "checkpoint-4"


def test_no_bit_of_a_manifest_can_be_flipped_unnoticed(run):
    path = run / "checkpoint-8" / checkpoint.MANIFEST
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        assert checkpoint.defect(run / "checkpoint-8"), f"byte {place}"
    path.write_bytes(whole)
    assert checkpoint.defect(run / "checkpoint-8") is None


def test_a_file_that_was_added_later_is_refused(run):
    final = run / "checkpoint-12"
    checkpoint.open_stage(final)
    for name in FILES[:-1]:
        write(checkpoint.stage(final) / name, checkpoint.step_of(final))
    checkpoint.commit(final, arguments={}, data=[], versions={})
    (final / FILES[-1]).write_text("of another run")
    assert checkpoint.defect(final) == f"{FILES[-1]} is not in manifest.json: it was not written with this checkpoint"


def test_a_manifest_keeps_what_json_has_no_type_for(tmp_path):
    final = tmp_path / "checkpoint-4"
    checkpoint.open_stage(final)
    for name in FILES:
        write(checkpoint.stage(final) / name, checkpoint.step_of(final))
    checkpoint.commit(final, arguments={"path": tmp_path, "rate": float("nan"), "name": "ä"}, data=[], versions={})
    assert checkpoint.defect(final) is None
    assert checkpoint.read_manifest(final).arguments["path"] == str(tmp_path)
    json.loads((final / checkpoint.MANIFEST).read_text())


# --- rotation --------------------------------------------------------------------------------------------------------


def names(output_dir):
    return [path.name for path in checkpoint.checkpoints_in(output_dir)]


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (1, ["checkpoint-6"]),
        (2, ["checkpoint-6", "checkpoint-8"]),
        (3, ["checkpoint-4", "checkpoint-6", "checkpoint-8"]),
        (9, ["checkpoint-4", "checkpoint-6", "checkpoint-8"]),
        (0, ["checkpoint-4", "checkpoint-6", "checkpoint-8"]),
    ],
)
def test_rotation_keeps_what_was_just_saved_beside_later_steps_of_an_earlier_run(run, limit, kept):
    checkpoint.rotate(save(run, 6), limit)
    assert names(run) == kept


# --- a save that is killed -------------------------------------------------------------------------------------------


def killed_at(operation, output_dir, action):
    """Fork, and kill the child with SIGKILL before its Nth change below `output_dir`; whether it got that far."""
    pid = os.fork()
    if pid == 0:
        left = operation

        def watch(event, arguments):
            nonlocal left
            changes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "open")
            if changes and arguments and str(arguments[0]).startswith(str(output_dir)):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            action()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def save_and_rotate(output_dir):
    checkpoint.rotate(save(output_dir, 12), 1)


def save_again(output_dir):
    save(output_dir, 8)


@pytest.mark.parametrize("action", [save_and_rotate, save_again])
def test_whenever_a_save_is_killed_latest_is_whole_and_the_next_save_cleans_up(tmp_path, action):
    operation, found = 0, set()
    while True:
        operation += 1
        run = tmp_path / str(operation)
        save(run, 4), save(run, 8)
        killed = killed_at(operation, run, lambda run=run: action(run))
        latest = checkpoint.find_checkpoint("latest", run)
        found.add(latest.name)
        assert all(checkpoint.defect(path) is None for path in checkpoint.checkpoints_in(run))
        save(run, 16)
        assert not [path.name for path in run.iterdir() if path.name.startswith(".")]
        if not killed:
            break
    assert operation > 20
    assert {"checkpoint-8"} < found
