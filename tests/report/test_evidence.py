"""What a real check recorded."""

import pytest

from resumecheck.evidence import QUANTITIES, RecordedRun

pytestmark = pytest.mark.slow


def test_the_uninterrupted_runs_are_there_from_the_first_step_to_the_last(mutant):
    evidence = mutant.evidence
    for run in (evidence.reference, evidence.source):
        assert (run.first_step, run.last_step) == (0, 12)
        for quantity in QUANTITIES:
            assert all(isinstance(run.at(quantity, step), float) for step in range(1, 13))
    assert evidence.source.parts_from(evidence.reference) is None
    assert evidence.source.checkpoints == (4, 9)
    assert evidence.reference.checkpoints == ()
    assert evidence.steps_per_epoch == 7


def test_a_resumed_run_parts_where_the_verdict_says(mutant):
    for point in mutant.verdict.resume_points:
        found = mutant.evidence.of(point.step, 1)
        assert (found.run.first_step, found.run.last_step) == (point.step, 12)
        assert found.run.parts_from(mutant.evidence.reference) == point.first_divergence.step


def test_the_component_that_is_blamed_is_the_one_that_was_lost(mutant):
    for found in mutant.evidence.resumed:
        lost = {state.component: state for state in found.state if state.lost}
        assert set(lost) == {"lr-scheduler"}
        assert lost["lr-scheduler"].expected != lost["lr-scheduler"].got
        weights = next(state for state in found.state if state.component == "weights")
        # With a learning rate of nothing the first step of a lost schedule changes no weight.
        assert weights.parts_at in (found.step + 1, found.step + 2)
        assert weights.differing > 0
        assert weights.where.startswith("parameter ")


def test_of_a_clean_run_nothing_differs_after_the_first_and_the_second_resume(twin):
    assert [(found.step, found.resumes) for found in twin.evidence.resumed] == [(4, 1), (8, 2), (9, 1), (11, 2)]
    for found in twin.evidence.resumed:
        assert found.run.parts_from(twin.evidence.reference) is None
        assert len(found.run.loss) == 12 - found.step
        assert {state.component for state in found.state} >= {"weights", "optimizer-moments", "lr-scheduler"}
        assert not any(state.lost or state.differing or state.parts_at or state.where for state in found.state)


def test_the_environment_and_the_arguments_are_those_of_the_run(mutant):
    assert mutant.evidence.environment["torch"] == mutant.verdict.versions["torch"]
    assert mutant.evidence.arguments["max_steps"] == "12"


def test_a_target_that_fails_leaves_no_evidence_of_an_earlier_one(workbench, mutant, tmp_path):
    target = tmp_path / "fails.py"
    target.write_text("def build(output_dir):\n    raise ValueError('there is no data')\n", encoding="utf-8")
    assert workbench.verify(f"{target}:build", steps=4, at=[2]).verdict == "error"
    assert workbench.evidence() is None


def test_runs_part_where_one_number_of_a_step_differs():
    run = RecordedRun("a", 0, (1.0, float("nan"), 3.0), (0.1,) * 3, (None,) * 3)
    assert run.parts_from(run) is None
    assert run.parts_from(RecordedRun("b", 1, (float("nan"), 4.0), (0.1,) * 2, (None,) * 2)) == 3
