"""The callback: a run that is recorded is the run that is not, and a record that fails ends no run."""

import logging
import random
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import dataloader
from transformers import Trainer, TrainerCallback

import resumecheck
from resumecheck.adapters.contract import Saving
from resumecheck.adapters.recorder import Recorder as StepRecorder
from resumecheck.adapters.transformers_trainer import TrainerAdapter
from resumecheck.errors import UsageError
from resumecheck.production.record import read_record
from resumecheck.production.recorder import Recorder
from resumecheck.state.digest import digest
from resumecheck.state.streams import digest_streams
from resumecheck.trajectory import TrajectoryWriter
from tests.production.runs import Run, Stops, audit
from tests.targets.plain import Rows, make_arguments, make_model, make_trainer


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def end_of(output_dir, *callbacks, **arguments):
    """Weights, moments, random streams and logs at the end of a run in this process."""
    random.seed(1), np.random.seed(1)
    trainer = make_trainer(output_dir, save_strategy="steps", save_steps=3, **arguments)
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.train()
    state = digest(trainer.model.state_dict()), digest(trainer.optimizer.state_dict())
    logs = [
        {name: entry[name] for name in entry if name in ("loss", "grad_norm")} for entry in trainer.state.log_history
    ]
    return state, digest_streams(), logs


class Draws(Recorder):
    """What a recorder must not do."""

    def on_step_end(self, *args, **kwargs):
        super().on_step_end(*args, **kwargs)
        torch.rand(1)


@pytest.mark.parametrize("arguments", [{}, {"gradient_accumulation_steps": 3, "dataloader_num_workers": 1}], ids=str)
def test_a_recorded_run_is_bit_for_bit_the_run_that_is_not_recorded(tmp_path, arguments):
    expected = end_of(tmp_path / "plain", **arguments)
    for level in ("light", "full"):
        assert end_of(tmp_path / level, Recorder(tmp_path / f"record {level}", level=level), **arguments) == expected
    assert end_of(tmp_path / "draws", Draws(tmp_path / "record"), **arguments)[:2] != expected[:2]


def test_what_was_wrapped_is_given_back_and_each_training_is_a_segment(tmp_path):
    before = dict(vars(dataloader._BaseDataLoaderIter)), dataloader._MultiProcessingDataLoaderIter._reset
    trainer = make_trainer(tmp_path / "out", max_steps=2)
    trainer.add_callback(Recorder(tmp_path / "record"))
    own = set(vars(trainer))
    trainer.train()
    trainer.train()
    assert set(vars(trainer)) & {"training_step", "_save_checkpoint", "_load_best_model", "evaluate"} <= own
    assert (dict(vars(dataloader._BaseDataLoaderIter)), dataloader._MultiProcessingDataLoaderIter._reset) == before
    first, second = read_record(tmp_path / "record")
    assert [each.run.last_step for each in (first, second)] == [2, 2]
    assert first.ended == "finished"


class Fails(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            raise RuntimeError("no more data")


def test_a_training_that_failed_and_is_begun_again_is_wrapped_once(tmp_path):
    trainer = make_trainer(tmp_path / "out", max_steps=3)
    trainer.add_callback(Recorder(tmp_path / "record"))
    fails = Fails()
    trainer.add_callback(fails)
    with pytest.raises(RuntimeError, match="no more data"):
        trainer.train()
    trainer.remove_callback(fails)
    trainer.train()
    first, second = read_record(tmp_path / "record")
    assert (first.ended, second.ended) == ("interrupted", "finished")
    assert [len(row.micro) for row in second.run.rows.values()] == [0, 1, 1, 1]


@pytest.mark.parametrize("at", ["append", "describe"])
def test_a_record_that_fails_is_told_and_the_run_goes_on(tmp_path, monkeypatch, caplog, at):
    expected = end_of(tmp_path / "plain")
    original = getattr(TrajectoryWriter, at)

    def full(writer, *args, **kwargs):
        if at == "append" and args[0].step < 3:
            return original(writer, *args, **kwargs)
        if at == "describe" and "max_steps" not in kwargs:
            return original(writer, *args, **kwargs)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrajectoryWriter, at, full)
    with caplog.at_level(logging.WARNING):
        assert end_of(tmp_path / "recorded", Recorder(tmp_path / "record")) == expected
    assert "the run is no longer recorded" in caplog.text
    found = audit(tmp_path / "record")
    assert "recording failed (OSError: [Errno 28] No space left on device)" in found.notes[-1]
    assert found.segments[0].ended == "interrupted"


def test_a_record_that_cannot_be_begun_is_wrong_usage(tmp_path):
    (tmp_path / "file").write_text("text")
    trainer = make_trainer(tmp_path / "out")
    trainer.add_callback(Recorder(tmp_path / "file" / "record"))
    with pytest.raises(UsageError, match="the record cannot be written"):
        trainer.train()
    with pytest.raises(UsageError, match="expected 'light' or 'full'"):
        Recorder(tmp_path, level="some")


def test_only_a_trainer_can_be_recorded(tmp_path):
    state = types.SimpleNamespace(is_world_process_zero=True)
    with pytest.raises(UsageError, match=r"no transformers.Trainer has called"):
        Recorder(tmp_path / "record").on_train_begin(None, state, None)


class Pretends(TrainerCallback):
    """Changes what the trainer says of itself when training begins."""

    def __init__(self, trainer, **facts):
        self.trainer, self.facts = trainer, facts

    def on_train_begin(self, args, state, control, **kwargs):
        for name, value in self.facts.items():
            setattr(self.trainer, name, value)


@pytest.mark.parametrize("pieces", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_state_in_pieces_is_refused_before_the_first_step(tmp_path, pieces):
    trainer = make_trainer(tmp_path / "out")
    trainer.add_callback(Pretends(trainer, **{pieces: True}))
    trainer.add_callback(Recorder(tmp_path / "record"))
    with pytest.raises(UsageError, match=r"in pieces .* is not recorded"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_runs_of_a_check_are_not_recorded(tmp_path):
    trainer = make_trainer(tmp_path / "out", max_steps=2)
    trainer.add_callback(Recorder(tmp_path / "record"))
    adapter = TrainerAdapter(trainer, tmp_path / "out")
    recorder = StepRecorder(TrajectoryWriter(tmp_path / "run"), adapter.live)
    adapter.attach(recorder, Saving(own=True), lambda length: None)
    trainer.train()
    assert recorder.finished_steps == 2
    assert not (tmp_path / "record").exists()


def test_what_is_saved_by_hand_after_training_is_no_failure(tmp_path, caplog):
    class SavesAtTheEnd(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            trainer._save_checkpoint(trainer.model, None)

    trainer = make_trainer(tmp_path / "out", max_steps=2, load_best_model_at_end=False)
    trainer.add_callback(SavesAtTheEnd())
    trainer.add_callback(Recorder(tmp_path / "record"))
    trainer.train()
    (segment,) = read_record(tmp_path / "record")
    assert (segment.saves, segment.ended) == ((2,), "finished")
    assert "no longer recorded" not in caplog.text


def test_a_recorder_given_to_the_trainer_at_once_records_as_well(tmp_path):
    trainer = Trainer(
        make_model(),
        make_arguments(tmp_path / "out", max_steps=2),
        train_dataset=Rows(),
        callbacks=[resumecheck.Recorder(tmp_path / "record")],
    )
    trainer.train()
    assert read_record(tmp_path / "record")[0].run.last_step == 2


def test_the_best_model_is_loaded_at_the_end_and_the_last_step_keeps_its_own_weights(tmp_path):
    arguments = make_arguments(
        tmp_path / "out",
        save_strategy="epoch",
        eval_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,  # the worst, so that it is that of the first epoch
        learning_rate=1e-2,
    )
    trainer = Trainer(
        make_model(),
        arguments,
        train_dataset=Rows(),
        eval_dataset=Rows(),
        callbacks=[Recorder(tmp_path / "record")],
    )
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-7")
    run = read_record(tmp_path / "record")[0].run
    for step in (7, 14):
        saved = load_file(tmp_path / "out" / f"checkpoint-{step}" / "model.safetensors")
        recorded = run.rows[step].state["weights"]
        assert recorded == {f"parameter|{name}": digest(tensor) for name, tensor in saved.items()}


def test_what_is_recorded_of_a_start(tmp_path):
    run = Run(tmp_path)
    assert run.start(Stops(5)) == 0
    assert run.start(Stops(6), resume=4) == 0
    first, second = read_record(run.record)
    assert first.facts["resumed_from"] is None
    assert second.facts["resumed_from"] == str(run.checkpoint(4))
    assert (first.ended, first.saves, first.facts["max_steps"]) == ("stopped", (4,), 14)
    assert {"python", "torch", "transformers", "accelerate"} <= first.facts["versions"].keys()
    assert first.facts["environment"]["torch.num_threads"] == 1
    assert first.facts["environment"]["world_size"] == 1
    assert first.run.rows[5].ids is not None
    assert first.run.rows[5].loss is not None
