"""Whatever is done to a file of a real checkpoint: refused by name before training starts, and nothing in it is run."""

import dataclasses
import json
import os
import pickle
import shutil

import pytest
import torch
import xxhash
from transformers import Trainer

from resumecheck.embedding import checkpoint
from resumecheck.embedding.train import main
from tests.embedding import tiny

pytestmark = pytest.mark.slow

FILES = (
    "config.json",
    "embedding_config.json",
    "manifest.json",
    "model.safetensors",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "tokenizer.json",
    "tokenizer_config.json",
    "trainer_state.json",
)


class MakesADirectory:
    """Unpickling it makes a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def trained(encoder, data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained") / "out"
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    assert main(tiny.train_options(encoder, data, directory, **options)) == 0
    return directory


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, to be damaged."""
    return shutil.copytree(trained, tmp_path / "out")


@pytest.fixture
def refused(encoder, data, run, capfd, monkeypatch):
    """Resume from the newest checkpoint, which must be refused before any training; returns the message."""
    monkeypatch.setattr(Trainer, "train", lambda *_: pytest.fail("training has started"))

    def resume(option="resume_from_checkpoint"):
        changes = {option: run / "checkpoint-2", "output_dir": run if option.startswith("resume") else run / "new"}
        assert main(tiny.train_options(encoder, data, changes.pop("output_dir"), **changes)) == 2
        text = capfd.readouterr().err
        assert "Traceback" not in text
        return text[text.index("resumecheck train: ") :]

    return resume


def rewrite_manifest(directory):
    """Make the manifest vouch for the files as they are."""
    manifest = checkpoint.read_manifest(directory)
    files = {name: checkpoint._facts(directory / name) for name in manifest.files}
    manifest = dataclasses.replace(manifest, files=files, digest="")
    manifest = dataclasses.replace(manifest, digest=xxhash.xxh3_128_hexdigest(manifest.text().encode()))
    (directory / checkpoint.MANIFEST).write_text(manifest.text(), encoding="utf-8")


# --- damage ----------------------------------------------------------------------------------------------------------


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def one_bit_flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def removed(path):
    path.unlink()


def a_directory(path):
    path.unlink()
    path.mkdir()


def replaced_by_another_checkpoints(path):
    other = path.parent.with_name("checkpoint-1") / path.name
    if other.read_bytes() == path.read_bytes():
        pytest.skip("the same in both checkpoints")
    shutil.copy(other, path)


def a_pickle_with_code(path):
    path.write_bytes(pickle.dumps(MakesADirectory(path.parents[2] / "executed")))


def a_torch_file_with_code(path):
    torch.save({"state": MakesADirectory(path.parents[2] / "executed")}, path)


DAMAGES = [
    truncated,
    emptied,
    one_bit_flipped,
    removed,
    a_directory,
    replaced_by_another_checkpoints,
    a_pickle_with_code,
    a_torch_file_with_code,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_by_name_before_training_and_latest_falls_back(run, refused, tmp_path, name, damage):
    damage(run / "checkpoint-2" / name)
    message = refused()
    assert message.startswith(f"resumecheck train: --resume_from_checkpoint {run / 'checkpoint-2'}: {name} ")
    assert f"--resume_from_checkpoint {run / 'checkpoint-1'}" in message
    assert len(message.strip().splitlines()) <= 3
    assert checkpoint.find_checkpoint("latest", run) == run / "checkpoint-1"
    assert not (tmp_path / "executed").exists()


def test_these_are_all_files_of_a_checkpoint(trained):
    assert tuple(sorted(path.name for path in (trained / "checkpoint-2").iterdir())) == FILES


@pytest.mark.parametrize("damage", [a_pickle_with_code, a_torch_file_with_code, truncated, emptied])
@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".pt", ".pth", ".safetensors"))])
def test_a_manifest_that_vouches_for_it_changes_nothing(run, refused, tmp_path, name, damage):
    damage(run / "checkpoint-2" / name)
    rewrite_manifest(run / "checkpoint-2")
    assert f": {name} holds something else than plain state; it was not loaded, and no code in it was run" in refused()
    assert checkpoint.find_checkpoint("latest", run) == run / "checkpoint-1"
    assert not (tmp_path / "executed").exists()


def test_the_pickle_would_run_its_code_where_it_is_unpickled(run, tmp_path):
    a_torch_file_with_code(run / "checkpoint-2" / "optimizer.pt")
    torch.load(run / "checkpoint-2" / "optimizer.pt", weights_only=False)
    assert (tmp_path / "executed").is_dir()


def test_a_state_of_another_step_is_refused_even_where_the_manifest_vouches_for_it(run, refused):
    replaced_by_another_checkpoints(run / "checkpoint-2" / "trainer_state.json")
    rewrite_manifest(run / "checkpoint-2")
    assert ": trainer_state.json is that of step 1, not of step 2" in refused()


@pytest.mark.parametrize("name", ["scaler.pt", "optimizer.bin", "pytorch_model.bin", "rng_state_0.pth"])
def test_a_file_put_beside_the_state_is_refused(run, refused, name):
    a_pickle_with_code(run / "checkpoint-2" / name)
    assert f": {name} is not in manifest.json: it was not written with this checkpoint" in refused()


def test_a_note_beside_the_state_does_no_harm(run):
    (run / "checkpoint-2" / "notes.txt").write_text("the good one")
    assert checkpoint.defect(run / "checkpoint-2") is None


def test_a_checkpoint_under_the_name_of_another_is_refused(run, refused):
    shutil.rmtree(run / "checkpoint-2")
    shutil.copytree(run / "checkpoint-1", run / "checkpoint-2")
    assert ": manifest.json is that of step 1, not of this checkpoint" in refused()


def test_a_checkpoint_under_a_name_of_its_own_is_whole(run):
    assert checkpoint.defect(shutil.copytree(run / "checkpoint-2", run / "the-good-one")) is None


@pytest.mark.parametrize("change", [{"files": []}, {"files": {"optimizer.pt": 1}}, {"digest": 3}, {"more": 1}])
def test_a_manifest_of_another_shape_is_refused(run, refused, change):
    path = run / "checkpoint-2" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert ": manifest.json cannot be read" in refused()


@pytest.mark.parametrize("damage", [truncated, one_bit_flipped, removed, a_pickle_with_code])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "embedding_config.json"])
def test_no_new_run_starts_from_damaged_weights(run, refused, name, damage):
    damage(run / "checkpoint-2" / name)
    assert f"--init_from_checkpoint {run / 'checkpoint-2'}: {name} " in refused("init_from_checkpoint")


def test_a_new_run_from_the_weights_does_not_need_the_state(run):
    (run / "checkpoint-2" / "optimizer.pt").unlink()
    assert checkpoint.weights_defect(run / "checkpoint-2") is None
