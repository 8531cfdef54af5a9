"""What an audit says of runs that were really killed and resumed."""

import json
import random
import shutil

import pytest
from transformers import BertForSequenceClassification, Trainer

from tests.production.runs import Run, Stops, audit, codes, only
from tests.targets.plain import Rows, make_model


class DrawsFromGlobalStream(Rows):
    def __getitem__(self, index):
        row = super().__getitem__(index)
        row["input_ids"][0] = random.randrange(5, 60)
        return row


class Counts(BertForSequenceClassification):
    """A model with an attribute that no checkpoint holds, on which the loss depends where `acts`."""

    acts, calls = False, 0

    def forward(self, input_ids=None, attention_mask=None, labels=None):
        found = super().forward(input_ids, attention_mask=attention_mask, labels=labels)
        self.calls += 1
        found.loss = found.loss * (1 + self.acts * self.calls / 100)
        return found


class ActsOnCount(Counts):
    acts = True


# --- exact ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"level": "full"},
        {"gradient_accumulation_steps": 2, "num_train_epochs": 4, "dataloader_num_workers": 1},
        {"save_strategy": "epoch"},
    ],
    ids=str,
)
def test_a_killed_run_that_is_resumed_is_exact(tmp_path, options):
    run = Run(tmp_path, **options)
    step = 7 if options.get("save_strategy") == "epoch" else 4
    run.killed(step + 3)
    run.resumed(step)
    found = run.audit()
    resume = only(found)
    assert (found.verdict, found.exit_status) == ("exact", 0), resume
    assert (resume.segment, resume.step, resume.continues, resume.executed_twice) == (2, step, 1, 2)
    assert [segment.ended for segment in found.segments] == ["interrupted", "finished"]
    assert (resume.notes, resume.window) == ((), ())


def test_a_run_that_is_resumed_twice_is_followed_to_the_segment_that_saved(tmp_path):
    run = Run(tmp_path)
    run.killed(6)
    run.killed(10, resume=4)
    run.resumed(8)
    resumes = run.audit().resumes
    assert [(each.segment, each.step, each.continues) for each in resumes] == [(2, 4, 1), (3, 8, 2)]
    assert [each.verdict for each in resumes] == ["exact", "exact"]


def test_a_run_that_starts_again_before_it_has_saved_is_compared_with_its_first_start(tmp_path):
    run = Run(tmp_path)
    run.killed(3)
    assert run.start(Stops(5)) == 0
    resume = only(run.audit())
    assert (resume.verdict, resume.step, resume.continues, resume.executed_twice) == ("exact", 0, 1, 2)


def test_a_run_whose_directory_was_moved_is_exact_and_the_place_is_noted(tmp_path):
    run = Run(tmp_path)
    run.killed(6)
    moved = tmp_path / "moved"
    run.output.rename(moved)
    run.output = moved
    run.resumed(4)
    resume = only(run.audit())
    assert resume.verdict == "exact"
    assert [note.partition(":")[0] for note in resume.notes] == ["changed place"]


def test_a_learning_rate_that_the_trainer_ignores_is_noted_and_no_divergence(tmp_path):
    run = Run(tmp_path)
    run.killed(7)
    run.resumed(4, learning_rate=5e-2, logging_steps=3)
    resume = only(run.audit())
    assert resume.verdict == "exact"
    assert resume.notes == (
        "changed arguments: learning_rate: expected 0.001, got 0.05; logging_steps: expected 5, got 3",
    )


def test_a_resume_that_is_recorded_at_another_level_is_compared_at_the_lower_one(tmp_path):
    run = Run(tmp_path)
    run.killed(10)
    run.level = "full"
    run.killed(10, resume=4)
    run.level = "light"
    run.resumed(8)
    assert [(each.verdict, each.executed_twice) for each in run.audit().resumes] == [("exact", 5), ("exact", 1)]


# --- equal as far as it is known ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["killed in the save", "stopped at the save"])
def test_where_no_step_was_executed_twice_the_state_is_compared_and_that_is_said(tmp_path, how):
    run = Run(tmp_path)
    if how == "killed in the save":
        run.killed(4, event="on_save")
    else:
        assert run.start(Stops(4)) == 0
    run.resumed(4)
    found = run.audit()
    resume = only(found)
    assert (resume.verdict, resume.executed_twice, found.exit_status) == ("state-equal", 0, 0)
    assert "no step was executed twice; the random streams are those of the save" in resume.notes[0]


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("optimizer.pt", ("RC401", "optimizer-moments")),
        ("rng_state.pth", ("RC303", "rng-torch")),
    ],
)
def test_what_is_lost_shows_though_no_step_was_executed_twice(tmp_path, lost, named):
    run = Run(tmp_path)
    assert run.start(Stops(4)) == 0
    (run.checkpoint(4) / lost).unlink()
    run.resumed(4)
    resume = only(run.audit())
    assert resume.verdict == "diverged"
    assert codes(resume)[0] == named
    assert codes(resume)[-1] == ("RC105", "checkpoint-files")


def test_samples_that_come_again_show_though_no_step_was_executed_twice(tmp_path):
    run = Run(tmp_path)
    assert run.start(Stops(4)) == 0
    run.resumed(4, ignore_data_skip=True)
    resume = only(run.audit())
    assert codes(resume) == [("RC202", "data-position")]
    assert resume.first_divergence.step == 5
    assert "of step 1 in the same epoch again" in resume.findings[0].message


# --- diverged -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["optimizer.pt", "scheduler.pt"])  # the Trainer drops both where one is missing
def test_a_lost_optimizer_is_named_with_the_file(tmp_path, lost):
    run = Run(tmp_path)
    run.killed(7)
    (run.checkpoint(4) / lost).unlink()
    run.resumed(4)
    found = run.audit()
    resume = only(found)
    assert (found.verdict, found.exit_status) == ("diverged", 1)
    assert [code for code, _component in codes(resume)] == ["RC401", "RC402", "RC404", "RC105"]
    assert f"the checkpoint of step 4 has no {lost}," in resume.findings[-1].message
    assert {finding.status for finding in resume.findings} == {"suspected"}
    first = resume.first_divergence
    assert (first.step, first.rung, first.component) == (5, "state-after-loading", "optimizer-moments")
    assert first.name == "bert.embeddings.word_embeddings.weight"


def test_data_that_draws_from_a_global_stream_is_named(tmp_path):
    run = Run(tmp_path, rows=DrawsFromGlobalStream)
    run.killed(7)
    run.resumed(4)
    resume = only(run.audit())
    assert resume.verdict == "diverged"
    assert ("RC204", "data-content") in codes(resume)
    assert resume.first_divergence.component == codes(resume)[0][1]


def test_data_that_is_replayed_is_named(tmp_path):
    run = Run(tmp_path)
    run.killed(7)
    run.resumed(4, ignore_data_skip=True)
    resume = only(run.audit())
    assert ("RC202", "data-position") in codes(resume)


@pytest.mark.parametrize(("cls", "verdict"), [(ActsOnCount, "diverged"), (Counts, "exact")])
def test_state_that_no_checkpoint_holds_is_seen_where_it_acts(tmp_path, cls, verdict):
    run = Run(tmp_path, model=lambda: make_model(cls))
    run.killed(7)
    run.resumed(4)
    resume = only(run.audit())
    assert resume.verdict == verdict
    if cls.acts:
        assert codes(resume) == [("RC501", "hidden-state")]
        assert (resume.first_divergence.step, resume.first_divergence.rung) == (5, "loss")
        assert any("resumecheck verify tells the two apart" in note for note in resume.notes)


def test_an_argument_that_acts_is_suspected_first(tmp_path):
    run = Run(tmp_path)
    run.killed(7)
    run.resumed(4, max_grad_norm=1e-3)
    resume = only(run.audit())
    assert codes(resume)[0] == ("RC701", "arguments")
    assert "max_grad_norm: expected 1.0, got 0.001" in resume.findings[0].message


class ForgetsTheSchedule(Trainer):
    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.lr_scheduler.last_epoch = 0


def test_a_learning_rate_that_begins_again_is_named(tmp_path):
    run = Run(tmp_path, cls=ForgetsTheSchedule)
    run.killed(7)
    run.resumed(4)
    resume = only(run.audit())
    assert codes(resume)[0] == ("RC404", "lr-scheduler")
    assert resume.first_divergence.rung == "state-after-loading"


def test_a_counter_that_is_not_restored_is_named_although_no_step_depends_on_it(tmp_path):
    run = Run(tmp_path)
    run.killed(7)
    state = run.checkpoint(4) / "trainer_state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "best_metric": 0.5}))
    run.resumed(4)
    resume = only(run.audit())
    assert codes(resume) == [("RC107", "counters")]
    assert resume.first_divergence.name == "best_metric"


# --- no resume, or none that is known -------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [False, True], ids=["anew", "from the weights of a checkpoint"])
def test_a_run_that_starts_over_though_there_is_a_checkpoint_is_told(tmp_path, weights):
    run = Run(tmp_path)
    run.killed(7)
    if weights:
        saved = run.checkpoint(4)
        run.model = lambda: type(make_model()).from_pretrained(saved)
    assert run.start(Stops(6)) == 0
    found = run.audit()
    resume = only(found)
    assert (found.verdict, found.exit_status) == ("started-over", 1)
    assert codes(resume) == [("RC107", "counters")]
    assert "step 4 had been saved (segment 1)" in resume.findings[0].message
    assert ("its weights are those of step 4" in resume.findings[0].message) is weights
    assert ("it repeats segment 1: 6 steps" in resume.notes[0]) is not weights


def test_a_resume_without_a_record_of_what_was_before_cannot_be_checked(tmp_path):
    run = Run(tmp_path)
    run.killed(7)
    other = tmp_path / "other record"
    run.resumed(4, record=other)
    found = audit(other)
    assert (found.verdict, found.exit_status) == ("not-checkable", 3)
    assert only(found).notes == ("it starts after step 4, and the record has no run before it",)


def test_steps_that_no_segment_has_are_told(tmp_path):
    run = Run(tmp_path)
    run.killed(7)
    assert run.start(Stops(8), resume=4, record=tmp_path / "other record") == 0
    run.resumed(8)
    found = run.audit()
    assert only(found).verdict == "not-checkable"
    assert "it starts after step 8, and the record ends with step 6 before it" in only(found).notes[0]


def test_a_run_that_was_never_resumed_has_nothing_to_audit(tmp_path):
    run = Run(tmp_path)
    assert run.start(Stops(5)) == 0
    found = run.audit()
    assert (found.verdict, found.exit_status, found.resumes) == ("no-resume", 0, ())


def test_a_start_that_ended_before_its_first_step_is_noted(tmp_path):
    run = Run(tmp_path)
    run.killed(6)
    run.killed(4, event="on_step_begin", resume=4)
    run.resumed(4)
    found = run.audit()
    assert "segment 2 recorded no step" in found.notes[0]
    assert [(resume.segment, resume.continues, resume.verdict) for resume in found.resumes] == [(3, 1, "exact")]


def test_a_checkpoint_of_another_run_in_the_place_of_its_own_is_seen(tmp_path):
    run, other = Run(tmp_path), Run(tmp_path / "other", seed=7)
    run.killed(7)
    other.killed(7)
    shutil.rmtree(run.checkpoint(4))
    other.checkpoint(4).rename(run.checkpoint(4))
    run.resumed(4)
    assert codes(only(run.audit()))[0] == ("RC101", "weights")
