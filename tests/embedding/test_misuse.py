"""What users of other fine-tuners run into when they resume, row by row, and what happens here, with the whole message.

Each claim about going on is a comparison of the final weights with those of the run that nothing interrupted.
"""

import json
import random
import shutil

import pytest
import safetensors.torch
import torch

from resumecheck.embedding.dataset import load_train_dataset
from resumecheck.embedding.rows import find_files
from resumecheck.embedding.sampler import SampleId
from resumecheck.embedding.settings import EmbeddingSettings
from resumecheck.embedding.train import main
from tests.embedding import tiny
from tests.embedding.test_corrupted_checkpoint import rewrite_manifest

SAVING = {"save_strategy": "steps", "save_steps": 4}


@pytest.fixture(scope="module")
def trained(encoder, data, tmp_path_factory):
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("trained") / "out"
    assert main(tiny.train_options(encoder, data, directory, **SAVING)) == 0
    return directory


@pytest.fixture
def run(trained, tmp_path):
    """The output directory of a run that was interrupted after step 4."""
    shutil.copytree(trained / "checkpoint-4", tmp_path / "out" / "checkpoint-4")
    return tmp_path / "out"


@pytest.fixture
def train(encoder, data, run, capfd):
    """Train in the directory of the run; returns exit status and, where it is 2, the whole message."""

    def start(**changes):
        capfd.readouterr()
        output_dir = changes.pop("output_dir", run)
        status = main(tiny.train_options(encoder, data, output_dir, **{**SAVING, **changes}))
        text = capfd.readouterr().err
        assert "Traceback" not in text
        return status, text[text.index("resumecheck train: ") :].strip() if status else ""

    return start


def weights(directory):
    return (directory / "model.safetensors").read_bytes()


def test_resuming_from_a_checkpoint_is_the_uninterrupted_run(train, run, trained):
    random.seed(99)  # no global stream decides what a sample is
    assert train(resume_from_checkpoint=run / "checkpoint-4") == (0, "")
    assert weights(run) == weights(trained)


def test_weights_whose_names_do_not_match_are_an_error_that_names_them(train, run):
    path = run / "checkpoint-4" / "model.safetensors"
    named = safetensors.torch.load_file(path)
    lost = "embeddings.word_embeddings.weight"
    named["model." + lost] = named.pop(lost)
    safetensors.torch.save_file(named, path, metadata={"format": "pt"})
    rewrite_manifest(run / "checkpoint-4")
    assert train(resume_from_checkpoint=run / "checkpoint-4") == (
        2,
        f"resumecheck train: {path}: the weights do not fit this model: missing: {lost}; "
        f"not known to the model: model.{lost}\nGive the --model_name_or_path that the run was started with.",
    )


def test_a_sample_is_the_same_whatever_was_drawn_before(data, tmp_path):
    def samples(seed):
        random.seed(seed), torch.manual_seed(seed)
        rows = load_train_dataset(
            [str(data)], EmbeddingSettings(), group_size=3, seed=3, cache_path=str(tmp_path / "cache")
        )
        order = list(range(tiny.ROWS))
        random.shuffle(order)
        found = {row: rows[SampleId(1, row)] for row in order}
        return [found[row] for row in sorted(found)]

    assert samples(0) == samples(1)


def test_batches_of_one_data_set_resume_with_workers(train, run, encoder, tmp_path):
    directory = tmp_path / "two"
    for name in ("a", "b"):
        tiny.write_rows(directory / f"{name}.jsonl", tiny.rows(13, seed=ord(name)))
    options = {"train_data": directory, "same_dataset_within_batch": True, "cache_path": tmp_path / "cache"}
    options |= {"small_threshold": 0, "drop_threshold": 0, "save_steps": 3}
    shutil.rmtree(run)
    assert train(**options) == (0, "")
    whole = weights(run)
    for left in run.iterdir():
        if left.name != "checkpoint-3":
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    assert train(**options, resume_from_checkpoint="latest", dataloader_num_workers=2) == (0, "")
    assert weights(run) == whole


def test_the_output_directory_as_checkpoint_names_the_newest_and_latest_takes_it(train, run, trained):
    assert train(resume_from_checkpoint=run) == (
        2,
        f"resumecheck train: --resume_from_checkpoint {run}: this is an output directory, not a checkpoint\n"
        f"The newest complete checkpoint there: --resume_from_checkpoint {run / 'checkpoint-4'}",
    )
    assert train(resume_from_checkpoint="latest") == (0, "")
    assert weights(run) == weights(trained)


def test_a_checkpoint_as_model_shows_the_two_meanings(train, run):
    given = run / "checkpoint-4"
    assert train(model_name_or_path=given, output_dir=run.with_name("new")) == (
        2,
        f"resumecheck train: --model_name_or_path {given}: this is a checkpoint of a run, not a model\n"
        f"To go on with that run: --resume_from_checkpoint {given} (and its own --model_name_or_path)\n"
        f"To start a new run from its weights: --init_from_checkpoint {given}",
    )


@pytest.mark.parametrize(
    ("file", "lost"),
    [("optimizer.pt", "the optimizer"), ("scheduler.pt", "the learning rate")],
)
def test_a_missing_file_of_the_state_is_an_error_that_names_it(train, run, file, lost):
    given = run / "checkpoint-4"
    (given / file).unlink()
    assert train(resume_from_checkpoint=given) == (
        2,
        f"resumecheck train: --resume_from_checkpoint {given}: {file} is missing, without it {lost} cannot be "
        f"restored\nThere is no complete checkpoint in {run}.\n"
        f"To start a new run from weights alone: --init_from_checkpoint {given}",
    )
    assert train(resume_from_checkpoint=given, allow_missing_state=file.partition(".")[0]) == (0, "")


def test_files_are_read_in_the_order_of_their_names(tmp_path):
    for name in ("c", "a", "b"):
        tiny.write_rows(tmp_path / "data" / f"{name}.jsonl", tiny.rows(2))
    assert [file.path.name for file in find_files([str(tmp_path / "data")])] == ["a.jsonl", "b.jsonl", "c.jsonl"]


def test_data_that_has_changed_is_an_error_that_names_the_file(train, run, data, tmp_path):
    other = tiny.write_rows(tmp_path / "other" / data.name, tiny.rows(tiny.ROWS, seed=1))
    assert train(train_data=other, resume_from_checkpoint="latest") == (
        2,
        "resumecheck train: --train_data: train.jsonl has changed since, so a resumed run would not be the same run\n"
        f"Give the data of the run, or start a new one from its weights: --init_from_checkpoint {run / 'checkpoint-4'}",
    )
    recorded = json.loads((run / "checkpoint-4" / "manifest.json").read_text())["data"]
    assert recorded == [{"name": file.path.name, "xxh3_128": file.digest} for file in find_files([str(data)])]


def test_an_output_directory_in_use_shows_the_ways_on(train, run):
    assert train() == (
        2,
        f"resumecheck train: --output_dir {run}: the directory is not empty\n"
        f"To go on with its run: --resume_from_checkpoint {run / 'checkpoint-4'}\n"
        "To start anew in it, removing its checkpoints: --overwrite_output_dir",
    )
    assert train(overwrite_output_dir=True) == (0, "")
