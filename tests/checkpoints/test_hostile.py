"""Hostile and damaged files: nothing in them runs, memory and time stay bounded, and each is named."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import resumecheck
from tests.checkpoints import hostile

pytestmark = pytest.mark.slow  # the files that are damaged are a framework's own

MEGABYTES = 600
SECONDS = 20

LIMITED = f"""
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEGABYTES} << 20, {MEGABYTES} << 20))
import resumecheck
diagnosis = resumecheck.doctor(sys.argv[1])
print(json.dumps(diagnosis.to_json()))
"""

FILES = {
    "optimizer.pt": (
        hostile.zip_bomb,
        hostile.many_members,
        hostile.huge_bytes,
        hostile.nested_pickle,
        hostile.doubling_pickle,
        hostile.colliding_keys,
        hostile.pipe,
        hostile.link_to_itself,
        hostile.endless_device,
        hostile.empty,
    ),
    "model.safetensors": (hostile.absurd_header, hostile.sparse_header, hostile.pipe, hostile.empty),
    "trainer_state.json": (hostile.nested_json, hostile.wide_json, hostile.pipe, hostile.link_to_itself),
}
#: A pickle of odd but plain values is not damaged; it only must not hang or be executed.
HARMLESS = {"doubling_pickle", "colliding_keys", "nested_pickle"}


@pytest.mark.parametrize(
    ("name", "make"),
    [(name, make) for name, makes in FILES.items() for make in makes],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_hostile_file_is_named_within_bounds_of_memory_and_time(name, make, copy_of):
    path = copy_of("transformers") / "checkpoint-4"
    (path / name).unlink()
    make(path / name)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert time.monotonic() - started < SECONDS
    (checkpoint,) = json.loads(done.stdout)["checkpoints"]
    if make.__name__ not in HARMLESS:
        assert [problem["file"] for problem in checkpoint["problems"] if problem["kind"] == "damaged"] == [name]


def test_the_bound_of_memory_is_real():
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({MEGABYTES} << 20,) * 2); bytearray(700 << 20)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "training_args.bin", "unknown.pkl", "scheduler.pt"])
@pytest.mark.parametrize("make", [hostile.pickle_with_code, hostile.bare_pickle_with_code])
def test_a_pickle_with_code_is_named_and_not_run(name, make, copy_of, tmp_path):
    path = copy_of("transformers") / "checkpoint-4"
    made = tmp_path / "made by the pickle"
    (path / name).unlink(missing_ok=True)
    make(path / name, made)
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    (problem,) = [problem for problem in checkpoint.problems if problem.kind == "code"]
    assert (problem.file, "posix.mkdir" in problem.message) == (name, True)
    assert not made.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"(cos\nsystem\nS'true'\no.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x01a\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
        b"\x80\x04\x8c\x05torch\x8c\x08hub.load\x93)R.",
        b"\x80\x02\x82\x01)R.",
        b"\x80\x04\x8c\x0anumpy.load\x8c\x05loads\x93)R.",
        b"\x80\x04(\x8c\x01a\x8c\x01bl\x8c\x04eval\x93)R.",
        b"\x80\x04\x8c\x0abuiltins.x\x8c\x09bytearray\x93K\x01\x85R.",
    ],
)
def test_every_way_to_call_a_function_is_seen(payload, copy_of):
    path = copy_of("transformers") / "checkpoint-4"
    hostile.torch_zip(path / "training_args.bin", payload)
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    assert [problem.kind for problem in checkpoint.problems] == ["code"]


def test_a_bytearray_of_any_size_is_not_made(copy_of):
    """`weights_only` would make it: a few bytes that ask for a terabyte of memory."""
    path = copy_of("transformers") / "checkpoint-4"
    hostile.torch_zip(path / "optimizer.pt", b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.")
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    assert any(problem.file == "optimizer.pt" for problem in checkpoint.problems)


def test_directories_that_are_links_are_not_entered(copy_of):
    path = copy_of("transformers") / "checkpoint-4"
    (path / "again").symlink_to(path)
    (path / "elsewhere").symlink_to("/")
    before = resumecheck.doctor(path.parent / "checkpoint-2").checkpoints[0]
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    assert [file.name for file in checkpoint.files] == [file.name for file in before.files]


def test_a_file_outside_the_checkpoint_is_told(copy_of, tmp_path):
    path = copy_of("transformers") / "checkpoint-4"
    shutil.move(path / "optimizer.pt", tmp_path / "optimizer.pt")
    (path / "optimizer.pt").symlink_to(tmp_path / "optimizer.pt")
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    assert checkpoint.whole
    assert any("outside the checkpoint" in remark for remark in checkpoint.remarks)


def test_a_name_cannot_speak_to_the_terminal(copy_of, capsys):
    from resumecheck.cli import main

    path = copy_of("transformers") / "checkpoint-4"
    (path / "\x1b]0;owned\x07.txt").write_text("x")
    os.close(os.open(os.fsencode(path) + b"/\xff\xfe.txt", os.O_CREAT))
    assert main(["doctor", str(path), "--json", str(path.parent / "doctor.json")]) == 0
    assert "\x1b" not in capsys.readouterr().out
    json.loads((path.parent / "doctor.json").read_text(encoding="utf-8"))


# --- damage at random ------------------------------------------------------------------------------------------------

WRITTEN = ["transformers", "accelerate", "dcp", "lightning", "deepspeed"]


@pytest.mark.parametrize("framework", WRITTEN)
def test_damage_at_random_never_raises(framework, copy_of):
    root = copy_of(framework)
    paths = sorted(path for path in root.rglob("*") if path.is_file() and "tokenizer" not in path.name)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def damage(data):
        path = data.draw(st.sampled_from(paths))
        good = path.read_bytes()
        bad = bytearray(good)
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, max(0, len(bad) - 1)))
            kind = data.draw(st.sampled_from(["cut", "flip", "insert", "zeros"]))
            if kind == "cut":
                del bad[place:]
            elif kind == "flip" and bad:
                bad[place] = data.draw(st.integers(0, 255))
            elif kind == "insert":
                bad[place:place] = data.draw(st.binary(max_size=16))
            else:
                bad[place : place + 64] = bytes(len(bad[place : place + 64]))
        try:
            path.write_bytes(bytes(bad))
            diagnosis = resumecheck.doctor(root)
            diagnosis.to_json()
            if len(bad) < len(good) and path.suffix in (".pt", ".bin", ".pth", ".ckpt", ".pkl", ".safetensors"):
                assert not diagnosis.whole
        finally:
            path.write_bytes(good)

    damage()


def test_a_file_that_is_cut_off_anywhere_is_damaged(copy_of):
    path = copy_of("transformers") / "checkpoint-4"
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        good = (path / name).read_bytes()
        for part in (0.0, 0.1, 0.5, 0.9, 1 - 3 / len(good)):
            (path / name).write_bytes(good[: int(part * len(good))])
            (checkpoint,) = resumecheck.doctor(path).checkpoints
            assert [problem.file for problem in checkpoint.problems if problem.kind == "damaged"] == [name], part
        (path / name).write_bytes(good)
    assert resumecheck.doctor(path).whole


def test_the_doctor_needs_no_torch(copy_of):
    code = "import sys, resumecheck; resumecheck.doctor(sys.argv[1]); assert 'torch' not in sys.modules"
    path = copy_of("transformers")
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_opening_a_pipe_does_not_wait(tmp_path):
    """Between listing and opening, a file may have become a pipe."""
    os.mkfifo(tmp_path / "pipe")
    code = """
import pathlib, sys
from resumecheck.checkpoints.reading.files import Unreadable, read_at_most
try:
    read_at_most(pathlib.Path(sys.argv[1]), 10)
except Unreadable as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pipe")], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.strip() == "is not a regular file"


def test_a_storage_of_another_size_than_its_pickle_says_is_damaged(copy_of):
    path = copy_of("transformers") / "checkpoint-4"
    with zipfile.ZipFile(path / "optimizer.pt") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    storage = max((name for name in members if "/data/" in name), key=lambda name: len(members[name]))
    members[storage] = members[storage][:-4]
    with zipfile.ZipFile(path / "optimizer.pt", "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    assert [problem.file for problem in checkpoint.problems if problem.kind == "damaged"] == ["optimizer.pt"]
