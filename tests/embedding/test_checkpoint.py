import json

import pytest
import safetensors.torch
import torch

from resumecheck.embedding import checkpoint
from resumecheck.errors import UsageError

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth")
DATA = [{"name": "train.jsonl", "xxh3_128": "00"}]


def write(path, step):
    """A file of a checkpoint, as small as its kind allows."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({"weight": torch.tensor([step])}, path)
    elif path.suffix == ".json":
        path.write_text(json.dumps({"global_step": step}))
    else:
        torch.save({"name": path.name, "step": step}, path)


def save(output_dir, step, *, data=DATA):
    final = output_dir / f"checkpoint-{step}"
    checkpoint.open_stage(final)
    for name in FILES:
        write(checkpoint.stage(final) / name, step)
    checkpoint.commit(final, arguments={"seed": 1}, data=data, versions={"torch": "2"})
    return final


@pytest.fixture
def run(tmp_path):
    """An output directory with three checkpoints, 10 the newest by number and not by name."""
    for step in (4, 8, 10):
        save(tmp_path / "out", step)
    return tmp_path / "out"


def test_a_checkpoint_is_whole_once_it_has_its_name(tmp_path):
    final = save(tmp_path / "out", 4)
    assert checkpoint.defect(final) is None
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint-4"]


def test_the_manifest_names_every_file_and_what_the_run_was(tmp_path):
    manifest = checkpoint.read_manifest(save(tmp_path / "out", 4))
    assert set(manifest.files) == set(FILES)
    assert (manifest.step, manifest.arguments, manifest.data) == (4, {"seed": 1}, DATA)


def test_a_save_that_was_killed_leaves_no_checkpoint(run):
    checkpoint.open_stage(run / "checkpoint-12")
    (checkpoint.stage(run / "checkpoint-12") / "model.safetensors").write_text("half")
    assert checkpoint.newest_whole(run) == run / "checkpoint-10"
    save(run, 14)
    assert not checkpoint.stage(run / "checkpoint-12").exists()


def test_saving_a_step_again_replaces_its_checkpoint(run):
    (run / "checkpoint-8" / "optimizer.pt").write_text("torn")
    assert checkpoint.defect(save(run, 8)) is None


def test_latest_is_the_newest_by_step(run):
    assert checkpoint.find_checkpoint("latest", run) == run / "checkpoint-10"


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_latest_falls_back_where_a_file_of_the_newest_is_missing(run, name):
    (run / "checkpoint-10" / name).unlink()
    assert checkpoint.find_checkpoint("latest", run) == run / "checkpoint-8"


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("model.safetensors", "the weights"),
        ("optimizer.pt", "the optimizer"),
        ("scheduler.pt", "the learning rate"),
        ("trainer_state.json", "step and epoch"),
        ("rng_state.pth", "the random streams"),
    ],
)
def test_a_missing_file_is_an_error_that_names_it_and_what_to_do(run, name, lost):
    (run / "checkpoint-10" / name).unlink()
    with pytest.raises(UsageError) as error:
        checkpoint.find_checkpoint(str(run / "checkpoint-10"), run)
    text = str(error.value)
    assert f"{name} is missing, without it {lost}" in text
    assert f"--resume_from_checkpoint {run / 'checkpoint-8'}" in text
    assert f"--init_from_checkpoint {run / 'checkpoint-10'}" in text
    assert len(text.splitlines()) <= 3


def test_a_file_cut_short_is_refused_by_name(run):
    path = run / "checkpoint-10" / "optimizer.pt"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-3])
    assert checkpoint.defect(run / "checkpoint-10") == f"optimizer.pt has {size - 3} bytes, {size} were written"


def test_one_altered_byte_is_refused_by_name(run):
    path = run / "checkpoint-10" / "optimizer.pt"
    path.write_bytes(b"O" + path.read_bytes()[1:])
    assert checkpoint.defect(run / "checkpoint-10") == "optimizer.pt is not the file that was written"


def test_the_streams_of_every_process_are_needed(run):
    assert "rng_state_0.pth is missing" in checkpoint.defect(run / "checkpoint-10", world_size=2)


def test_a_manifest_that_is_no_manifest_is_refused(run):
    for text in ("{", json.dumps({"step": 1})):
        (run / "checkpoint-10" / "manifest.json").write_text(text)
        assert checkpoint.defect(run / "checkpoint-10") == "manifest.json cannot be read"


def test_an_output_directory_as_checkpoint_names_the_newest_in_it(run):
    with pytest.raises(UsageError, match="an output directory, not a checkpoint") as error:
        checkpoint.find_checkpoint(str(run), run)
    assert f"--resume_from_checkpoint {run / 'checkpoint-10'}" in str(error.value)


def test_a_directory_that_is_not_there_names_the_newest_beside_it(run):
    with pytest.raises(UsageError, match="no such directory") as error:
        checkpoint.find_checkpoint(str(run / "checkpoint-11"), run)
    assert f"--resume_from_checkpoint {run / 'checkpoint-10'}" in str(error.value)


def test_latest_of_nothing_is_an_error_that_says_how_to_start(tmp_path):
    with pytest.raises(UsageError, match="holds no complete checkpoint\nLeave the option out"):
        checkpoint.find_checkpoint("latest", tmp_path / "absent")


def test_latest_of_broken_checkpoints_says_what_is_wrong_with_them(tmp_path):
    (save(tmp_path, 4) / "scheduler.pt").unlink()
    with pytest.raises(UsageError, match=r"checkpoint-4: scheduler\.pt is missing"):
        checkpoint.find_checkpoint("latest", tmp_path)


def test_rotation_keeps_the_newest(run):
    checkpoint.rotate(run / "checkpoint-10", 2)
    assert [path.name for path in checkpoint.checkpoints_in(run)] == ["checkpoint-8", "checkpoint-10"]
    checkpoint.rotate(run / "checkpoint-10", None)
    assert len(checkpoint.checkpoints_in(run)) == 2


def test_changed_data_is_an_error_that_names_the_file(run):
    checkpoint.check_data(run / "checkpoint-8", DATA)
    with pytest.raises(UsageError, match=r"train\.jsonl has changed since"):
        checkpoint.check_data(run / "checkpoint-8", [{"name": "train.jsonl", "xxh3_128": "01"}])
    with pytest.raises(UsageError, match=r"other\.jsonl takes the place of train\.jsonl"):
        checkpoint.check_data(run / "checkpoint-8", [{"name": "other.jsonl", "xxh3_128": "01"}])
    with pytest.raises(UsageError, match=r"started with 1 file\(s\), now there are 2"):
        checkpoint.check_data(run / "checkpoint-8", [*DATA, *DATA])
