"""A save of a run under DeepSpeed, ZeRO stage 1, is killed at each event in its files: before it, and with it torn.

Each time `--resume_from_checkpoint latest` must go on, with no cleaning by hand, to the weights of the run that was not
interrupted, bit for bit. One process, forked for each death. DeepSpeed is no dependency: install the extra `deepspeed`.
Every fifth way to die is taken; RESUMECHECK_KILLS=1 takes all of them.
"""

import importlib.util
import json
import os
import shutil

import pytest

from resumecheck.embedding import checkpoint
from resumecheck.embedding.train import main
from tests.embedding import forks, ranks, tiny
from tests.embedding.test_kill_of_two_processes import SAVE, STEPS, train_and_die

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed (the extra `deepspeed`)"
    ),
]
EVERY = 1 if os.environ.get("RESUMECHECK_KILLS") else 5


@pytest.fixture(scope="module")
def options(encoder, data, tmp_path_factory):
    """The options of a run into a directory; a checkpoint after each of its steps removes the one before."""
    configuration = tmp_path_factory.mktemp("zero") / "1.json"
    names = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    configuration.write_text(json.dumps({**dict.fromkeys(names, "auto"), "zero_optimization": {"stage": 1}}))
    plain = {
        "deepspeed": configuration,
        "ddp_backend": "gloo",
        "max_steps": STEPS,
        "gradient_accumulation_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 1,
    }
    return lambda output_dir, **more: tiny.train_options(encoder, data, output_dir, **{**plain, **more})


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run an action in a process of its own, as torchrun starts one; its exit status."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    import deepspeed.ops  # once, before the forks

    # Processes of a machine could share memory by an extension, which takes minutes to compile when it is asked for.
    monkeypatch.setitem(deepspeed.ops.__compatible_ops__, "deepspeed_shm_comm", False)
    return lambda action: ranks.run(lambda _: action(), tmp_path / "rendezvous", 1)[0]


def test_wherever_it_dies_in_a_save_it_goes_on_to_the_same_weights(options, run, tmp_path):
    reference = tmp_path / "reference"
    assert run(lambda: main(options(reference, save_strategy="no"))) == 0
    weights = (reference / "model.safetensors").read_bytes()
    assert run(lambda: train_and_die(options(tmp_path / "all"), 0, 0, None)) == 0
    events = json.loads((tmp_path / "all.events-0").read_text())
    files = {path.name for path in (tmp_path / "all" / f"checkpoint-{STEPS}").rglob("*") if path.is_file()}
    assert any(name.endswith("_optim_states.pt") for name in files)
    touched = {path.rpartition("/")[2] for kind, path, _ in events if kind in ("create", "write", "sync")}
    assert files <= touched
    there = [kind for kind, _, _ in events].index("rename") + 1  # the event that gives the checkpoint its name
    ways = [
        (number, torn)
        for number, (_kind, _path, can_be_torn) in enumerate(events, 1)
        for torn in (False, True)[: 1 + can_be_torn]
    ]
    # Around the renaming, all of them.
    taken = [way for place, way in enumerate(ways) if place % EVERY == 0 or abs(way[0] - there) <= 1]
    found = set()
    for number, torn in taken:
        told = f"killed {'in' if torn else 'before'} event {number} of {len(events)}: {events[number - 1]}"
        directory = tmp_path / f"{number}-{int(torn)}"
        status = run(lambda case=(directory, number, torn): train_and_die(options(case[0]), 0, 0, case[1], case[2]))
        assert forks.was_killed(status), told
        newest = checkpoint.find_checkpoint("latest", directory).name
        assert newest == f"checkpoint-{SAVE if number > there else SAVE - 1}", told
        found.add(newest)
        assert run(lambda case=directory: main(options(case, resume_from_checkpoint="latest"))) == 0, told
        assert (directory / "model.safetensors").read_bytes() == weights, told
        assert not checkpoint.leftovers(directory), told
        assert [path.name for path in checkpoint.checkpoints_in(directory)] == [f"checkpoint-{STEPS}"], told
        shutil.rmtree(directory)
    assert found == {"checkpoint-1", "checkpoint-2"}
    print(f"{len(taken)} of {len(ways)} ways to die, {len(events)} events")
