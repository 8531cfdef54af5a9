"""Lightning: what its checkpoints keep is left alone, what they lose is named, and its data has to know its place.

`make test` leaves some of the loaders out; `RESUMECHECK_MATRIX=1` takes all.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from resumecheck.errors import UsageError

pytest.importorskip("lightning", reason="Lightning is not installed: pip install lightning")

RUNS = "tests.targets.lightning_runs"
MUTANTS = {
    "schedule": "lr-scheduler",
    "moments": "optimizer-moments",
    "counter": "hidden-state",
    "callback": "callbacks",
    "streams": "rng-torch",
    "loss_parameter": "loss-parameters",
    "buffer": "buffers",
    "augmentation": "data-content",
    "order": "data-order",
    "position": "data-position",
}
EVERY = bool(os.environ.get("RESUMECHECK_MATRIX"))
#: Loader -> what is lost inside an epoch, and at its end.
LOADERS = {
    "by_epoch": ("data-position", None),
    "counts_epochs": (None, "data-order"),
    "shuffled": ("data-position", "data-order"),
    "stateful": ("data-order", "data-order"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS if EVERY else [*MUTANTS][:8])
def test_a_lost_state_of_a_lightning_run_is_named_and_confirmed(workbench, mutant):
    (point,) = workbench.verify(f"{RUNS}:{mutant}", steps=8, at=[4]).resume_points
    assert point.verdict == "diverged"
    assert (point.findings[0].component, point.findings[0].status) == (MUTANTS[mutant], "confirmed")
    assert point.first_divergence.step == 5


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_twin_that_keeps_its_state_is_equivalent(workbench, mutant):
    verdict = workbench.verify(f"{RUNS}:{mutant}_twin", steps=8, at=[4])
    assert verdict.verdict == "equivalent", verdict.to_json()
    assert [point.latent for point in verdict.resume_points] == [()]


def test_a_run_that_keeps_all_is_equivalent(workbench):
    # Inside an epoch, one step before its end, at it, one step after it, and inside the next.
    verdict = workbench.verify(f"{RUNS}:right", at=[4, 6, 7, 8, 10])
    assert verdict.verdict == "equivalent", verdict.to_json()
    assert (verdict.steps, verdict.steps_executed) == (14, 14 + 14 + 10 + 8 + 7 + 6 + 4)
    assert [point.latent for point in verdict.resume_points] == [()] * 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["by_hand", "with_workers"])
def test_other_runs_that_keep_all_are_equivalent(workbench, name):
    verdict = workbench.verify(f"{RUNS}:{name}", steps=12, at=[4, 7, 10])
    assert verdict.verdict == "equivalent", verdict.to_json()
    assert [point.latent for point in verdict.resume_points] == [()] * 3


@pytest.mark.slow
def test_lightning_under_its_older_name_is_known(workbench):
    run = workbench.reference_run(f"{RUNS}:of_the_older_name", steps=3)
    assert (run.last_step, run.facts["versions"]["pytorch_lightning"][:1]) == (3, "2")


@pytest.mark.slow
def test_accumulation_a_kill_and_the_next_horizon(workbench):
    # Four batches and one of three make an epoch: 7 batches, two to a step.
    verdict = workbench.verify(f"{RUNS}:accumulated", at=[2, 4, 6], horizon="next", interrupt="sigkill")
    assert verdict.verdict == "equivalent", verdict.to_json()
    assert verdict.steps == 8


@pytest.mark.slow
def test_the_score_of_a_model_checkpoint_is_lost_without_an_effect(workbench):
    # `current_score` is in its state_dict, and its load_state_dict leaves it out. Its paths are found again.
    (point,) = workbench.verify(f"{RUNS}:with_checkpoints", at=[8]).resume_points
    assert point.verdict == "equivalent"
    (latent,) = point.latent
    assert (latent.component, "ModelCheckpoint['current_score']" in latent.message) == ("callbacks", True)
    assert "and 1 more" not in latent.message


def test_a_lightning_run_is_recorded_as_a_trainer_is(workbench):
    run = workbench.reference_run(f"{RUNS}:accumulated")
    rows = [run.rows[step] for step in run.steps]
    assert [len(row.micro) for row in rows] == [2, 2, 2, 1] * 2
    assert sorted(sample for row in rows[:4] for sample in row.ids) == list(range(28))
    assert all(loss is not None for loss in run.loss[1:])
    assert [row.lr for row in rows[:3]] == [[0.01], [0.005], [0.01 * (1 / 3)]]
    assert all(set(row.gradients) == set(rows[0].gradients) and row.grad_norm > 0 for row in rows)
    assert {"weights", "buffers", "optimizer-moments", "lr-scheduler", "counters", "callbacks"} <= set(rows[0].state)
    assert (run.facts["max_steps"], run.facts["steps_per_epoch"]) == (8, 4)
    assert [bool(row.epoch_streams) for row in rows] == [True, False, False, False] * 2
    assert [[event["kind"] for event in row.events] for row in rows[3::4]] == [["evaluate", "log"]] * 2
    assert set(rows[3].events[0]["metrics"]) == {"val_loss"}


# --- what Lightning itself loses ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS if EVERY else ["by_epoch", "counts_epochs"])
def test_what_becomes_of_the_data_inside_an_epoch_and_at_its_end(workbench, name):
    points = workbench.verify(f"{RUNS}:{name}", steps=9, at=[4, 7]).resume_points
    for point, component in zip(points, LOADERS[name], strict=True):
        assert point.verdict == ("diverged" if component else "equivalent")
        assert [found.component for found in point.findings][:1] == ([component] if component else [])
        assert all(found.status == "confirmed" for found in point.findings)


@pytest.mark.slow
def test_a_schedule_that_waits_for_a_metric_misses_the_end_of_the_epoch_in_which_a_run_goes_on(workbench):
    inside, at_the_end = workbench.verify(f"{RUNS}:plateau", steps=9, at=[4, 7]).resume_points
    assert inside.findings[0].status == at_the_end.findings[0].status == "confirmed"
    assert "trainer.fit_loop._restarting: expected False, got True" in inside.findings[0].message
    assert at_the_end.findings[0].component == "lr-scheduler"


@pytest.mark.slow
def test_the_mean_of_an_epoch_is_that_of_the_steps_after_the_resume(workbench):
    (point,) = workbench.verify(f"{RUNS}:mean", steps=9, at=[4]).resume_points
    assert point.findings[0].status == "confirmed"
    assert "train_loss logged: expected" in point.findings[0].message


@pytest.mark.slow
def test_the_run_of_the_documentation_is_equivalent_at_the_ends_of_its_epochs(workbench, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    (tmp_path / "run.py").write_text(re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)[2])
    inside, *ends = workbench.verify(f"{tmp_path}/run.py:build", at=[4, 6, 12]).resume_points
    assert inside.findings[0].component == "data-position"
    assert [point.verdict for point in ends] == ["equivalent"] * 2


# --- wrong usage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alone", "returned a Lightning Trainer without what it trains"),
        ("elsewhere", "Give it default_root_dir=output_dir"),
        ("with_a_checkpoint", "which checkpoint a run goes on from is resumecheck's"),
    ],
)
def test_what_is_no_lightning_target_is_wrong_usage(workbench, name, message):
    with pytest.raises(UsageError, match=message):
        workbench.verify(f"{RUNS}:{name}", steps=4, at=[2])


@pytest.mark.slow
def test_an_argument_of_the_trainer_can_be_changed_on_resume(workbench):
    (point,) = workbench.verify(
        f"{RUNS}:accumulated", steps=4, at=[2], on_resume={"gradient_clip_val": "0.01"}
    ).resume_points
    assert (point.verdict, point.findings[0].component) == ("diverged", "arguments")
    with pytest.raises(UsageError, match="Trainer has no argument 'no_such'"):
        workbench.verify(f"{RUNS}:accumulated", steps=4, at=[2], on_resume={"no_such": "1"})


@pytest.mark.slow
def test_no_observer_changes_a_lightning_run(tmp_path):
    script = (
        "import sys, torch; from pathlib import Path; sys.path.insert(0, '.')\n"
        "from tests.targets.lightning_runs import watched\n"
        "watched(Path(sys.argv[1]), sys.argv[2])"
    )
    alone, observed = (
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / how), how], capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
        for how in ("alone", "observed")
    )
    assert alone == observed
    assert alone.startswith("14 steps ")
