"""Loops of one's own, plain and with accelerate: lost state is named, what is right is left alone and undisturbed."""

import re
from pathlib import Path

import pytest

from resumecheck.errors import UsageError
from tests.targets import observed_loops

LOOPS = "tests.targets.loops"
MUTANTS = {
    "schedule": "lr-scheduler",
    "position": "data-position",
    "streams": "rng-torch",
    "moments": "optimizer-moments",
    "mean": "hidden-state",
}


@pytest.mark.parametrize("loop", ["plain", "accelerated"])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_lost_state_of_a_loop_is_named_and_confirmed(workbench, loop, mutant):
    (point,) = workbench.verify(f"{LOOPS}:{loop}_{mutant}", at=[4]).resume_points
    assert point.verdict == "diverged"
    assert (point.findings[0].component, point.findings[0].status) == (MUTANTS[mutant], "confirmed")
    assert point.first_divergence.step == 5


@pytest.mark.parametrize("loop", ["plain", "accelerated"])
def test_hidden_state_of_a_loop_is_named_by_its_path(workbench, loop):
    (point,) = workbench.verify(f"{LOOPS}:{loop}_mean", at=[4]).resume_points
    assert "loop.mean: expected 1.0" in point.findings[0].message
    assert "got 1.0" in point.findings[0].message


@pytest.mark.parametrize("name", ["plain", "accelerated", "plain_with_workers", "accelerated_with_workers"])
def test_a_loop_that_loses_nothing_is_equivalent(workbench, name):
    # Inside an epoch, at its end, and one step before it.
    verdict = workbench.verify(f"{LOOPS}:{name}", at=[4, 6, 7, 9])
    assert verdict.verdict == "equivalent", verdict.to_json()
    assert (verdict.steps, verdict.notes) == (14, ())
    assert [point.latent for point in verdict.resume_points] == [()] * 4


@pytest.mark.parametrize("name", ["plain_mean_twin", "accelerated_mean_twin"])
def test_the_twin_that_saves_its_attribute_is_equivalent(workbench, name):
    assert workbench.verify(f"{LOOPS}:{name}", at=[4]).equivalent


@pytest.mark.parametrize("name", ["plain", "accelerated"])
def test_a_loop_is_recorded_as_a_trainer_is(workbench, name):
    run = workbench.reference_run(f"{LOOPS}:{name}")
    rows = [run.rows[step] for step in run.steps]
    micro = 2 if name == "accelerated" else 1
    assert [len(row.micro) for row in rows] == [micro] * 14
    assert sorted(sample for row in rows[:7] for sample in row.ids) == list(range(28))
    assert all(loss is not None for loss in run.loss[1:])
    assert [row.lr for row in rows[:3]] == [[0.01], [0.005], [0.01 * (1 / 3)]]
    assert all(set(row.gradients) == set(rows[0].gradients) and row.grad_norm > 0 for row in rows)
    assert {"weights", "buffers", "optimizer-moments", "optimizer-step", "lr-scheduler"} <= set(rows[0].state)
    assert (run.facts["max_steps"], run.facts["steps_per_epoch"]) == (14, 7)
    assert [bool(row.epoch_streams) for row in rows] == [True, *[False] * 6] * 2


@pytest.mark.parametrize(
    ("name", "component", "status"),
    [
        ("directions_lost", "optimizer-moments", "confirmed"),
        ("one_saved_twice", "optimizer-moments", "confirmed"),
        ("old_model_trained", "weights", "suspected"),
    ],
)
def test_lost_state_that_is_no_single_tensor_is_named(workbench, name, component, status):
    (point,) = workbench.verify(f"tests.targets.odd_loops:{name}", at=[4]).resume_points
    assert (point.findings[0].component, point.findings[0].status) == (component, status)


@pytest.mark.parametrize("name", ["directions", "two_optimizers", "proxy"])
def test_odd_state_that_is_restored_is_left_alone(workbench, name):
    assert workbench.verify(f"tests.targets.odd_loops:{name}", at=[4]).equivalent


def test_what_changes_between_loader_and_model_is_content(workbench):
    (point,) = workbench.verify(f"{LOOPS}:plain_noise", at=[4]).resume_points
    assert (point.findings[0].component, point.findings[0].status) == ("data-content", "confirmed")


def test_a_local_variable_of_the_generator_is_found(workbench):
    (point,) = workbench.verify(f"{LOOPS}:plain_local", at=[4]).resume_points
    assert point.findings[0].component == "hidden-state"
    assert "loop.steps().<locals>.mean: expected 1.0" in point.findings[0].message


def test_the_next_horizon_and_a_kill_work_with_a_loop(workbench):
    verdict = workbench.verify(f"{LOOPS}:plain", at=[4, 7, 9], horizon="next", interrupt="sigkill")
    assert verdict.verdict == "equivalent", verdict.to_json()


def test_an_attribute_can_be_changed_on_resume(workbench):
    verdict = workbench.verify(f"{LOOPS}:plain", at=[4], on_resume={"max_norm": "0.01"})
    assert verdict.verdict == "diverged"
    with pytest.raises(UsageError, match="PlainLoop has no argument 'no_such'"):
        workbench.verify(f"{LOOPS}:plain", at=[4], on_resume={"no_such": "1"})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cannot_be_resumed", r"CannotBeResumed, which has steps\(\) but cannot be resumed"),
        ("holds_no_model", "HoldsNoModel without a model"),
        ("never_trains", r"NeverTrains.steps\(\) yielded although no model of it was called"),
    ],
)
def test_an_object_that_is_no_loop_is_wrong_usage(workbench, name, message):
    with pytest.raises(UsageError, match=message):
        workbench.verify(f"{LOOPS}:{name}", steps=4, at=[2])


@pytest.mark.slow
def test_the_plugin_judges_loops_without_a_test_file(pytester, request):
    root = str(request.config.rootpath)
    pytester.makeini("[pytest]\nresumecheck_at = 4")
    pytester.makeconftest(f"import sys\nsys.path.insert(0, {root!r})")
    targets = [f"{LOOPS}:accelerated", f"{LOOPS}:plain_streams"]
    options = [f"--resumecheck-target={target}" for target in targets]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", root)
        result = pytester.runpytest_subprocess("--resumecheck", *options)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*rng-torch, confirmed*"])


@pytest.mark.parametrize("number", [0, 1])
def test_the_loops_of_the_documentation_are_equivalent(workbench, tmp_path, number):
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    block = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)[number]
    (tmp_path / "loop.py").write_text(block)
    verdict = workbench.verify(f"{tmp_path}/loop.py:build", at=[4, 6, 9])
    assert verdict.verdict == "equivalent", verdict.to_json()
    assert verdict.steps == 12


# --- the observer changes nothing ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unobserved(tmp_path_factory):
    """The facts of a loop that is trained without any observer."""
    made = {}

    def facts(name, workers):
        if (name, workers) not in made:
            directory = tmp_path_factory.mktemp("unobserved") / name
            made[name, workers] = observed_loops.watch_in_fork(name, "unobserved", workers, directory)
        return made[name, workers]

    return facts


def different(facts, others):
    return [name for name in facts if facts[name] != others[name]]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("observer", ["off", "light", "full", "everything"])
@pytest.mark.parametrize("loop", observed_loops.LOOPS)
def test_no_observer_of_a_loop_changes_it(unobserved, tmp_path, loop, observer, workers):
    alone = unobserved(loop, workers)
    assert len(alone["batches"]) == (28 if loop == "accelerate" else 14)
    assert different(alone, observed_loops.watch_in_fork(loop, observer, workers, tmp_path / "run")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("observer", "changed"),
    [("draws", ["streams at the end"]), ("touches", ["weights and buffers", "optimizer"])],
)
def test_an_observer_of_a_loop_that_disturbs_is_seen(unobserved, tmp_path, observer, changed):
    disturbed = observed_loops.watch_in_fork("plain", observer, 0, tmp_path / "run")
    assert set(changed) <= set(different(unobserved("plain", 0), disturbed))
