"""A resumed run is the uninterrupted run, bit for bit, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers.trainer import safe_globals

from tests.embedding import tiny

pytestmark = pytest.mark.slow

#: 4 steps to an epoch: in the middle of the first, at the boundary, in the middle of the second.
POINTS = (2, 4, 6)
REPOSITORY = Path(__file__).parents[2]


TWO_PROCESSES = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")


def start(
    options: list[str], launcher: tuple[str, ...] = (), module: tuple[str, ...] = ("resumecheck", "train")
) -> subprocess.Popen:
    command = [sys.executable, "-m", *launcher, *module, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(options: list[str], launcher: tuple[str, ...] = ()) -> None:
    process = start(options, launcher)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def final_state(output_dir: Path) -> dict:
    """Everything that a finished run has: weights, optimizer, schedule, random streams, and what it logged."""
    last = output_dir / "checkpoint-8"
    with safe_globals():
        streams = torch.load(next(last.glob("rng_state*.pth")), weights_only=True)
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    return {
        "weights": safetensors.torch.load_file(output_dir / "model.safetensors"),
        "optimizer": torch.load(last / "optimizer.pt", weights_only=True),
        "schedule": torch.load(last / "scheduler.pt", weights_only=True),
        "streams": {"python": streams["python"], "torch": streams["cpu"], "numpy": streams["numpy"][1].tolist()},
        "logged": [entry for entry in history if "loss" in entry],
    }


def differences(first, second, path="") -> list[str]:
    """The paths at which two nested states differ, tensors compared bit for bit."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        same = first.dtype == second.dtype and torch.equal(
            first.contiguous().view(-1).view(torch.uint8), second.contiguous().view(-1).view(torch.uint8)
        )
        return [] if same else [path]
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return [found for key in first for found in differences(first[key], second[key], f"{path}.{key}")]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [found for place, (a, b) in pairs for found in differences(a, b, f"{path}[{place}]")]
    return [] if first == second else [path]


@pytest.fixture(scope="module")
def uninterrupted(encoder, data, tmp_path_factory):
    """The run that saves only at its end."""
    directory = tmp_path_factory.mktemp("uninterrupted") / "out"
    run(tiny.train_options(encoder, data, directory, save_strategy="steps", save_steps=8))
    return final_state(directory)


@pytest.fixture(scope="module")
def interrupted(encoder, data, tmp_path_factory):
    """The run that saves after every step."""
    directory = tmp_path_factory.mktemp("interrupted") / "out"
    run(tiny.train_options(encoder, data, directory, save_strategy="steps", save_steps=1))
    return directory


def test_saving_after_every_step_changes_nothing(uninterrupted, interrupted):
    assert differences(uninterrupted, final_state(interrupted)) == []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("point", POINTS)
def test_a_resumed_run_ends_as_the_uninterrupted_run(
    uninterrupted, interrupted, encoder, data, tmp_path, point, workers
):
    options = tiny.train_options(
        encoder,
        data,
        tmp_path / "out",
        save_strategy="steps",
        save_steps=8,
        dataloader_num_workers=workers,
        resume_from_checkpoint=interrupted / f"checkpoint-{point}",
    )
    run(options)
    assert differences(uninterrupted, final_state(tmp_path / "out")) == []


def test_the_comparison_notices_one_bit(uninterrupted):
    weights = dict(uninterrupted["weights"])
    name = next(iter(weights))
    weights[name] = torch.nextafter(weights[name], torch.tensor(torch.inf))
    assert differences(uninterrupted, {**uninterrupted, "weights": weights}) == [f".weights.{name}"]


def test_a_run_killed_with_sigkill_goes_on_from_its_latest_checkpoint(uninterrupted, encoder, data, tmp_path):
    options = tiny.train_options(encoder, data, tmp_path / "out", save_strategy="steps", save_steps=1)
    process = start(options)
    try:
        while not (tmp_path / "out" / "checkpoint-3").is_dir():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "checkpoint-8").exists()
    run([*options, "--resume_from_checkpoint", "latest"])
    assert differences(uninterrupted, final_state(tmp_path / "out")) == []


def test_two_processes_resumed_in_a_later_epoch_end_as_when_uninterrupted(encoder, data, tmp_path):
    # Where a custom batch sampler depends on `set_epoch`, this resume gets the order of epoch 0.
    def options(name: str, **changes: object) -> list[str]:
        plain = {"gradient_accumulation_steps": 1, "ddp_backend": "gloo", "save_strategy": "steps"}
        return tiny.train_options(encoder, data, tmp_path / name, **plain, **changes)

    run(options("source", save_steps=2), TWO_PROCESSES)
    middle_of_second_epoch = tmp_path / "source" / "checkpoint-6"
    run(options("resumed", save_steps=8, resume_from_checkpoint=middle_of_second_epoch), TWO_PROCESSES)
    assert differences(final_state(tmp_path / "source"), final_state(tmp_path / "resumed")) == []


@pytest.mark.resumecheck(at=[2, 4, 6])
def test_the_plugin_finds_the_trainer_equivalent(resumecheck, encoder, data):
    def build(output_dir):
        from resumecheck.embedding.arguments import parse_train_arguments
        from resumecheck.embedding.train import build_trainer

        return build_trainer(*parse_train_arguments(tiny.train_options(encoder, data, Path(output_dir))))

    verdict = resumecheck(build)
    assert verdict.equivalent
    assert verdict.steps == 8
