"""A save is killed at each event in its files: before it, and with the file torn. All of them, not a sample.

Each time `--resume_from_checkpoint latest` must go on, with no cleaning by hand, to the weights of the run that was not
interrupted, bit for bit. The saving process is forked just before its save, once for each event.
"""

import json
import shutil

import pytest

from resumecheck.embedding import checkpoint
from resumecheck.embedding.arguments import parse_train_arguments
from resumecheck.embedding.train import build_trainer, main
from resumecheck.runs.faults import FileEvents, tear
from tests.embedding import forks, tiny

pytestmark = pytest.mark.slow

STEPS = 3


def options(encoder, data, output_dir, **changes):
    """One batch to a step, a checkpoint after each."""
    plain = {"max_steps": STEPS, "gradient_accumulation_steps": 1, "save_strategy": "steps", "save_steps": 1}
    return tiny.train_options(encoder, data, output_dir, **plain, **changes)


@pytest.fixture(scope="module")
def reference(encoder, data, tmp_path_factory):
    """The final weights of the run that nothing interrupts and that saves nothing before its end."""
    directory = tmp_path_factory.mktemp("reference") / "out"
    assert forks.run(lambda: main([*options(encoder, data, directory), "--save_strategy", "no"])) == 0
    return (directory / "model.safetensors").read_bytes()


def kill_at_each_event(arguments, step, root, *, prepare=lambda output_dir: None):
    """Train up to the save of `step`, and die in it in every way, each in a copy of the output directory below `root`.

    Returns:
        The events as (kind, path, can be torn), and name of the copy -> (number of the event, torn).
    """

    def all_of_them():
        trainer = build_trainer(*parse_train_arguments(arguments))
        save = trainer._save_checkpoint

        def save_and_die(model, trial):
            if trainer.state.global_step != step:
                return save(model, trial)
            prepare(root / "out")
            (root / "out").mkdir(exist_ok=True)

            def die(number, torn):
                trainer.args.output_dir = str(shutil.copytree(root / "out", root / f"{number}-{int(torn)}"))

                def saving():
                    events = FileEvents(trainer.args.output_dir, number, torn)
                    save(model, trial)
                    events.die_at = None
                    (root / "events.json").write_text(json.dumps(events.seen))

                return forks.run(saving)

            assert die(0, torn=False) == 0
            for number, (_kind, _path, can_be_torn) in enumerate(json.loads((root / "events.json").read_text()), 1):
                for torn in (False, True)[: 1 + can_be_torn]:
                    assert forks.was_killed(die(number, torn)), f"event {number} did not happen again"
            raise SystemExit

        trainer._save_checkpoint = save_and_die
        try:
            trainer.train()
        except SystemExit:
            return 0
        return 1

    assert forks.run(all_of_them) == 0
    events = json.loads((root / "events.json").read_text())
    cases = [
        (number, torn)
        for number, (_kind, _path, can_be_torn) in enumerate(events, 1)
        for torn in (False, True)[: 1 + can_be_torn]
    ]
    return events, {f"{number}-{int(torn)}": (number, torn) for number, torn in cases}


def assert_every_file_is_seen(events, directory):
    written = {path.rpartition("/")[2] for kind, path, _ in events if kind == "write"}
    synced = {path.rpartition("/")[2] for kind, path, _ in events if kind == "sync"}
    files = {path.name for path in directory.iterdir()}
    assert written == files
    assert files < synced


def assert_it_goes_on(directory, arguments, reference, told):
    """Resume by `latest` in a process of its own."""
    assert forks.run(lambda: main(arguments)) == 0, told
    assert (directory / "model.safetensors").read_bytes() == reference, told
    assert not checkpoint.leftovers(directory), told
    assert all(checkpoint.defect(path) is None for path in checkpoint.checkpoints_in(directory)), told
    shutil.rmtree(directory)


def test_a_save_beside_an_earlier_checkpoint_that_it_removes(reference, encoder, data, tmp_path):
    arguments = options(encoder, data, tmp_path / "out", save_total_limit=1)
    events, cases = kill_at_each_event(arguments, 2, tmp_path)
    assert_every_file_is_seen(events, tmp_path / "0-0" / "checkpoint-2")
    kinds = [kind for kind, _, _ in events]
    assert {"create", "write", "sync", "rename", "remove", "rmdir", "mkdir"} == set(kinds)
    assert kinds.count("rename") == 2
    there = [path.endswith("checkpoint-1") and kind == "rename" for kind, path, _ in events].index(True)
    found = {}
    for name, (number, torn) in cases.items():
        directory = tmp_path / name
        found[name] = checkpoint.find_checkpoint("latest", directory).name
        told = f"killed {'in' if torn else 'before'} event {number}: {events[number - 1]}"
        # The new checkpoint is there from its renaming on, the old one until then.
        assert found[name] in ({"checkpoint-1"} if number < there else {"checkpoint-1", "checkpoint-2"}), told
        arguments = options(encoder, data, directory, save_total_limit=1, resume_from_checkpoint="latest")
        assert_it_goes_on(directory, arguments, reference, told)
    assert set(found.values()) == {"checkpoint-1", "checkpoint-2"}
    assert found[f"{len(events)}-0"] == "checkpoint-2"


def test_a_save_in_the_place_of_a_torn_checkpoint(reference, encoder, data, tmp_path):
    def tear_the_second(output_dir):
        shutil.copytree(output_dir / "checkpoint-1", output_dir / "checkpoint-2")
        tear(output_dir / "checkpoint-2" / "optimizer.pt")

    arguments = options(encoder, data, tmp_path / "out")
    events, cases = kill_at_each_event(arguments, 2, tmp_path, prepare=tear_the_second)
    assert_every_file_is_seen(events, tmp_path / "0-0" / "checkpoint-2")
    found = set()
    for name, (number, torn) in cases.items():
        found.add(checkpoint.find_checkpoint("latest", tmp_path / name).name)
        told = f"killed {'in' if torn else 'before'} event {number}: {events[number - 1]}"
        arguments = options(encoder, data, tmp_path / name, resume_from_checkpoint="latest")
        assert_it_goes_on(tmp_path / name, arguments, reference, told)
    assert found == {"checkpoint-1", "checkpoint-2"}


def test_a_run_killed_in_its_first_save_starts_again_without_the_option(reference, encoder, data, tmp_path, capfd):
    events, cases = kill_at_each_event(options(encoder, data, tmp_path / "out"), 1, tmp_path)
    assert_every_file_is_seen(events, tmp_path / "0-0" / "checkpoint-1")
    again = 0
    for name, (number, torn) in cases.items():
        whole = checkpoint.newest_whole(tmp_path / name) is not None
        arguments = options(encoder, data, tmp_path / name)
        latest = [*arguments, "--resume_from_checkpoint", "latest"]
        if not whole:
            again += 1
            assert main(latest) == 2
            assert "Leave the option out to start the run from its beginning." in capfd.readouterr().err
        told = f"killed {'in' if torn else 'before'} event {number}: {events[number - 1]}"
        assert_it_goes_on(tmp_path / name, latest if whole else arguments, reference, told)
    assert 0 < again < len(cases)
