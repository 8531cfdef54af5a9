"""A save of two processes is killed at each event in its files, on either process: before it, and with the file torn.

Each time `--resume_from_checkpoint latest` must go on in two processes, with no cleaning by hand, from the newest
complete checkpoint to the weights of the run that was not interrupted, bit for bit. `make test` takes every third way
to die; RESUMECHECK_KILLS=1 takes all of them. The processes are forks with torchrun's variables, since a start takes
seconds; one death is repeated under torchrun itself.
"""

import json
import os
import shutil

import pytest

from resumecheck.embedding import checkpoint
from resumecheck.embedding.arguments import parse_train_arguments
from resumecheck.embedding.train import build_trainer, main
from resumecheck.runs.faults import FileEvents
from tests.embedding import forks, ranks, tiny
from tests.embedding.test_exact_resume import TWO_PROCESSES, start

pytestmark = pytest.mark.slow

STEPS = 3
#: The save that is killed.
SAVE = 2
EVERY = 1 if os.environ.get("RESUMECHECK_KILLS") else 3


def options(encoder, data, output_dir, **changes):
    """One batch of each process to a step, a checkpoint after each, which removes the one before."""
    plain = {
        "max_steps": STEPS,
        "gradient_accumulation_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 1,
        "ddp_backend": "gloo",
        "negatives_cross_device": True,
    }
    return tiny.train_options(encoder, data, output_dir, **{**plain, **changes})


def train_and_die(arguments, rank, dying, number, torn=False):
    """Train; the process `dying` does not survive event `number` of its save, or lists all where that is None."""
    trainer = build_trainer(*parse_train_arguments(arguments))
    save = trainer._save_checkpoint
    output_dir = trainer.args.output_dir

    def save_and_die(model, trial):
        if trainer.state.global_step != SAVE or rank != dying:
            save(model, trial)
            return
        # The other process writes there too: its files are no strangers.
        events = FileEvents(output_dir, number, torn, strangers=False)
        save(model, trial)
        with open(f"{output_dir}.events-{rank}", "w") as stream:
            json.dump(events.seen, stream)

    trainer._save_checkpoint = save_and_die
    trainer.train()


def events_of(arguments, output_dir, dying, rendezvous):
    """The events of one process in its save, as (kind, path, can be torn)."""
    statuses = ranks.run(lambda rank: train_and_die(arguments, rank, dying, None), rendezvous)
    assert statuses == [0, 0]
    return json.loads(output_dir.with_name(f"{output_dir.name}.events-{dying}").read_text())


@pytest.fixture(scope="module")
def reference(encoder, data, tmp_path_factory):
    """The final weights of two processes that nothing interrupts and that save nothing before their end."""
    directory = tmp_path_factory.mktemp("reference")
    arguments = options(encoder, data, directory / "out", save_strategy="no")
    assert ranks.run(lambda _: main(arguments), directory / "rendezvous") == [0, 0]
    return (directory / "out" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def events(encoder, data, tmp_path_factory):
    """By process."""
    directory = tmp_path_factory.mktemp("events")
    found = []
    for dying in range(ranks.WORLD_SIZE):
        output_dir = directory / str(dying)
        found.append(events_of(options(encoder, data, output_dir), output_dir, dying, directory / "rendezvous"))
    return found


def assert_it_goes_on(directory, arguments, reference, told, rendezvous):
    assert ranks.run(lambda _: main(arguments), rendezvous) == [0, 0], told
    assert (directory / "model.safetensors").read_bytes() == reference, told
    assert not checkpoint.leftovers(directory), told
    assert [path.name for path in checkpoint.checkpoints_in(directory)] == [f"checkpoint-{STEPS}"], told
    assert checkpoint.defect(directory / f"checkpoint-{STEPS}", ranks.WORLD_SIZE) is None, told


def test_the_events_are_those_of_every_file_of_the_checkpoint(events, encoder, data, tmp_path):
    arguments = options(encoder, data, tmp_path / "out", max_steps=SAVE)
    assert ranks.run(lambda _: main(arguments), tmp_path / "rendezvous") == [0, 0]
    files = {path.name for path in (tmp_path / "out" / f"checkpoint-{SAVE}").iterdir()}
    written = [{path.rpartition("/")[2] for kind, path, _ in seen if kind == "write"} for seen in events]
    assert written[0] | written[1] == files
    assert written[1] == {"rng_state_1.pth"}
    assert files < {path.rpartition("/")[2] for kind, path, _ in events[0] if kind == "sync"}
    kinds = {kind for kind, _, _ in events[0]}
    assert kinds == {"create", "write", "sync", "rename", "remove", "rmdir", "mkdir"}


def test_wherever_one_of_two_processes_dies_in_a_save_both_go_on_to_the_same_weights(
    reference, events, encoder, data, tmp_path
):
    there = [kind == "rename" for kind, _, _ in events[0]].index(True) + 1  # the event that gives it its name
    ways = [
        (dying, number, torn)
        for dying, seen in enumerate(events)
        for number, (_kind, _path, can_be_torn) in enumerate(seen, 1)
        for torn in (False, True)[: 1 + can_be_torn]
    ]
    found = set()
    for dying, number, torn in ways:
        if EVERY > 1 and dying == 0 and (number + torn) % EVERY:
            continue
        told = f"process {dying} killed {'in' if torn else 'before'} event {number}: {events[dying][number - 1]}"
        directory = tmp_path / f"{dying}-{number}-{int(torn)}"
        arguments = options(encoder, data, directory)
        statuses = ranks.run(
            lambda rank, case=(arguments, dying, number, torn): train_and_die(case[0], rank, *case[1:]),
            tmp_path / "rendezvous",
        )
        assert forks.was_killed(statuses[dying]), told
        assert statuses[1 - dying] != 0, told
        newest = checkpoint.find_checkpoint("latest", directory, ranks.WORLD_SIZE).name
        # Its name makes the checkpoint one, and that process 0 gives it.
        late = dying == 0 and number > there
        assert newest in ({"checkpoint-2"} if late else {"checkpoint-1"}), told
        found.add(newest)
        resume = [*arguments, "--resume_from_checkpoint", "latest"]
        assert_it_goes_on(directory, resume, reference, told, tmp_path / "rendezvous")
        shutil.rmtree(directory)
    assert found == {"checkpoint-1", "checkpoint-2"}


@pytest.mark.parametrize("dying", [0, 1] if EVERY == 1 else [0])
def test_a_save_killed_under_torchrun_goes_on_under_torchrun(reference, events, encoder, data, tmp_path, dying):
    arguments = options(encoder, data, tmp_path / "out")
    names = [path.rpartition("/")[2] for kind, path, _ in events[dying] if kind == "write"]
    kinds = [(kind, path.rpartition("/")[2]) for kind, path, _ in events[dying]]
    number = kinds.index(("write", names[len(names) // 2])) + 1
    process = start(
        [str(dying), str(number), *arguments], TWO_PROCESSES, module=("tests.embedding.test_kill_of_two_processes",)
    )
    text, _ = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "SIGKILL" in text, text
    assert checkpoint.find_checkpoint("latest", tmp_path / "out", ranks.WORLD_SIZE).name == "checkpoint-1"
    process = start([*arguments, "--resume_from_checkpoint", "latest"], TWO_PROCESSES)
    text, _ = process.communicate(timeout=100)
    assert process.returncode == 0, text
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == reference


if __name__ == "__main__":  # one process of the run under torchrun that is killed
    import sys

    train_and_die(sys.argv[3:], int(os.environ["RANK"]), int(sys.argv[1]), int(sys.argv[2]), torn=True)
