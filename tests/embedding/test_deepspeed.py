"""DeepSpeed: a resumed run ends, on each process, as the uninterrupted one; what would not is refused before training.

The runs need DeepSpeed, which is no dependency: install the extra `deepspeed` to have them made.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from transformers.trainer import safe_globals

from resumecheck.embedding import checkpoint, zero
from resumecheck.errors import UsageError
from tests.embedding import tiny
from tests.embedding.test_checkpoint import save, write
from tests.embedding.test_corrupted_checkpoint import rewrite_manifest
from tests.embedding.test_exact_resume import REPOSITORY, TWO_PROCESSES, differences

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed (the extra `deepspeed`)"
)
AUTO = dict.fromkeys(("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"), "auto")


def settings(stage, **more):
    return {**AUTO, "zero_optimization": {"stage": stage}, **more}


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_stages_that_keep_the_weights_whole_are_understood(stage):
    zero.check_settings(settings(stage, bf16={"enabled": stage > 0}, fp16={"enabled": False}))
    zero.check_settings({"zero_optimization": {"stage": stage, "overlap_comm": True}})


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (settings(3), "zero_optimization.stage is 3, expected 0, 1 or 2"),
        (settings(1, optimizer={"type": "AdamW"}), "optimizer cannot be used here: give --optim"),
        (settings(1, scheduler={"type": "WarmupLR"}), "scheduler cannot be used here: give --lr_scheduler_type"),
        (settings(0, bf16={"enabled": True}), "bf16 at stage 0 cannot be used here"),
        (settings(1, fp16={"enabled": True}), "fp16 cannot be used here"),
        (settings(1, data_efficiency={"enabled": True}), "data_efficiency cannot be used here"),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}},
            "zero_optimization.offload_optimizer cannot be used here",
        ),
    ],
)
def test_settings_that_would_not_resume_exactly_are_refused_by_name(given, named):
    with pytest.raises(UsageError) as error:
        zero.check_settings(given)
    assert f"--deepspeed: {named}" in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


# --- checkpoints, without DeepSpeed ----------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """Two checkpoints with the files of DeepSpeed in the place of optimizer.pt."""
    for step in (4, 8):
        final = save(tmp_path / "out", step)
        (final / "optimizer.pt").unlink()
        parts = final / f"global_step{step}"
        parts.mkdir()
        for rank in range(2):
            write(parts / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt", step)
            write(final / f"rng_state_{rank}.pth", step)
        write(parts / "mp_rank_00_model_states.pt", step)
        (final / "latest").write_text(parts.name)
        manifest_over_all_files(final)
    return tmp_path / "out"


def manifest_over_all_files(final):
    (final / checkpoint.MANIFEST).unlink()
    final.rename(checkpoint.stage(final))
    checkpoint.commit(final, arguments={}, data=[], versions={})


def test_the_files_of_deepspeed_stand_for_the_optimizer(run):
    assert checkpoint.find_checkpoint("latest", run, world_size=2) == run / "checkpoint-8"
    assert checkpoint.missing_state(run / "checkpoint-8", 2) == set()


@pytest.mark.parametrize(
    "name",
    [
        "latest",
        "global_step8/mp_rank_00_model_states.pt",
        "global_step8/zero_pp_rank_0_mp_rank_00_optim_states.pt",
        "global_step8/zero_pp_rank_1_mp_rank_00_optim_states.pt",
    ],
)
def test_a_missing_file_of_deepspeed_is_refused_by_name_and_latest_falls_back(run, name):
    (run / "checkpoint-8" / name).unlink()
    with pytest.raises(UsageError, match=f"{name} is missing"):
        checkpoint.find_checkpoint(str(run / "checkpoint-8"), run, world_size=2, allowed=("optimizer",))
    assert checkpoint.find_checkpoint("latest", run, world_size=2) == run / "checkpoint-4"


class MakesADirectory:
    """Unpickling it makes a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_file_of_deepspeed_is_refused_and_not_run(run, tmp_path):
    name = "global_step8/zero_pp_rank_1_mp_rank_00_optim_states.pt"
    torch.save({"optimizer_state_dict": MakesADirectory(tmp_path / "made")}, run / "checkpoint-8" / name)
    rewrite_manifest(run / "checkpoint-8")
    problem = checkpoint.defect(run / "checkpoint-8", world_size=2)
    assert problem is not None
    assert "holds something else than plain state" in problem
    assert not (tmp_path / "made").exists()


def test_a_new_run_from_its_weights_does_without_them(run):
    shutil.rmtree(run / "checkpoint-8" / "global_step8")
    assert checkpoint.weights_defect(run / "checkpoint-8") is None


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("deepspeed")
    tiny.write_encoder(directory / "encoder")
    for number, count in enumerate((24, 36)):
        tiny.write_rows(directory / "files" / f"{number}.jsonl", tiny.rows(count, seed=number))
    for stage in (0, 1, 2, 3):
        (directory / f"{stage}.json").write_text(json.dumps(settings(stage)))
        (directory / f"{stage}-bf16.json").write_text(json.dumps(settings(stage, bf16={"enabled": True})))
    return directory


def train(directory, output_dir, configuration, **changes):
    """A run of two processes; 7 batches to an epoch, 3 to a step, so that the last step of an epoch has one."""
    plain = {
        "deepspeed": configuration and directory / f"{configuration}.json",
        "ddp_backend": "gloo",
        "negatives_cross_device": True,
        "same_dataset_within_batch": True,
        "gradient_accumulation_steps": 3,
        "save_strategy": "steps",
        "save_steps": 1,
        "cache_path": directory / "cache",
    }
    options = tiny.train_options(directory / "encoder", directory / "files", output_dir, **{**plain, **changes})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", *TWO_PROCESSES, "resumecheck", "train", *options],
        check=False,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


def final_state(output_dir):
    """Weights, and of each process optimizer and random streams; the schedule, and what was logged."""
    last = checkpoint.checkpoints_in(output_dir)[-1]
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    found = {
        "weights": safetensors.torch.load_file(output_dir / "model.safetensors"),
        "schedule": torch.load(last / "scheduler.pt", weights_only=True),
        "logged": [entry for entry in history if "loss" in entry],
    }
    for rank in range(2):
        with zero.plain_state_only():
            state = zero.tensors_of(zero.optimizer_state(last, rank))
            assert state
            found[f"optimizer {rank}"] = state
        with safe_globals():
            streams = torch.load(last / f"rng_state_{rank}.pth", weights_only=True)
        found[f"streams {rank}"] = {**streams, "numpy": streams["numpy"][1].tolist()}
    return found


@needs_deepspeed
@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["0", "1", "2", "1-bf16", "2-bf16"])
def test_a_resumed_run_ends_on_each_process_as_when_uninterrupted(directory, tmp_path, configuration):
    precision = {"bf16": configuration.endswith("bf16")}
    status, text = train(directory, tmp_path / "source", configuration, **precision)
    assert status == 0, text
    expected = final_state(tmp_path / "source")
    last = checkpoint.step_of(checkpoint.checkpoints_in(tmp_path / "source")[-1])
    for point in (2, last // 2, last - 1):  # in the middle of the first epoch, at its end, in the second
        status, text = train(
            directory,
            tmp_path / f"resumed-{point}",
            configuration,
            save_steps=last,
            resume_from_checkpoint=tmp_path / "source" / f"checkpoint-{point}",
            verify_resume=True,
            **precision,
        )
        assert status == 0, text
        assert text.count("is the recorded, bit for bit: losses, weights") == 1, text
        assert text.count(" restored  ") + text.count(" restored\n") == 5, text
        assert differences(expected, final_state(tmp_path / f"resumed-{point}")) == []


@needs_deepspeed
@pytest.mark.slow
def test_stages_end_with_the_weights_that_no_deepspeed_ends_with(directory, tmp_path):
    ends = {}
    for configuration in (None, "0", "1", "2"):
        status, text = train(directory, tmp_path / str(configuration), configuration, save_strategy="no")
        assert status == 0, text
        ends[configuration] = safetensors.torch.load_file(tmp_path / str(configuration) / "model.safetensors")
    for configuration in ("0", "1", "2"):
        for name, tensor in ends[None].items():
            assert torch.allclose(tensor, ends[configuration][name], rtol=0, atol=1e-5), (configuration, name)


@needs_deepspeed
@pytest.mark.slow
def test_another_stage_or_none_is_refused_before_training(directory, tmp_path):
    assert train(directory, tmp_path / "one", "1", max_steps=2)[0] == 0
    assert train(directory, tmp_path / "none", None, max_steps=2)[0] == 0
    for source, configuration, told in (
        ("one", "2", "its run was started with --deepspeed at stage 1 in 2 process(es), this one with --deepspeed at"),
        ("one", None, "its run was started with --deepspeed at stage 1 in 2 process(es), this one with no --deepspeed"),
        ("none", "1", "its run was started with no --deepspeed in 2 process(es), this one with --deepspeed at stage 1"),
    ):
        given = tmp_path / source / "checkpoint-2"
        status, text = train(directory, tmp_path / source, configuration, resume_from_checkpoint=given)
        assert status != 0
        assert told in text
        assert "resumecheck/embedding" not in text  # in a traceback
        assert "'loss'" not in text


@needs_deepspeed
@pytest.mark.slow
def test_a_refused_configuration_is_one_message_and_no_training(directory, tmp_path):
    status, text = train(directory, tmp_path / "out", "3")
    assert status != 0
    assert "resumecheck train: --deepspeed: zero_optimization.stage is 3" in text
    assert "'loss'" not in text


@needs_deepspeed
@pytest.mark.slow
def test_a_configuration_that_contradicts_the_options_is_one_message(directory, tmp_path):
    status, text = train(directory, tmp_path / "out", "1-bf16")
    assert status != 0
    assert "resumecheck train: --deepspeed: " in text
    assert "ds bf16.enabled=True vs hf bf16" in text
    assert "resumecheck/embedding" not in text
