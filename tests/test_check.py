"""The experiment on real runs: clean set-ups are left alone, wrong input is refused, failures are named."""

import functools
import json
import threading

import pytest

import resumecheck
from resumecheck.check import assert_resume_equivalent, horizons, spread_points
from resumecheck.errors import ResumeDivergence, UsageError

PLAIN = "tests.targets.plain"


@pytest.mark.slow
@pytest.mark.parametrize(
    "factory", ["build", "build_with_workers", "build_with_accumulation", "build_with_accumulation_and_workers"]
)
def test_an_ordinary_trainer_is_equivalent_at_every_step(workbench, factory):
    verdict = workbench.verify(f"{PLAIN}:{factory}", steps=12, at=list(range(1, 12)))
    assert verdict.verdict == "equivalent", verdict.to_json()
    assert [point.step for point in verdict.resume_points] == list(range(1, 12))
    assert all(point.compared == 12 - point.step for point in verdict.resume_points)


def test_the_json_follows_the_contract_and_reads_back(workbench):
    verdict = workbench.verify(f"{PLAIN}:build", steps=6, at=[3])
    data = json.loads(json.dumps(verdict.to_json()))
    assert {"schema", "target", "verdict", "tolerance", "steps", "steps_executed", "versions"} <= set(data)
    assert (data["schema"], data["steps"], data["steps_executed"]) == (1, 6, 6 + 6 + 3)
    assert resumecheck.Verdict.from_json(data) == verdict


def test_steps_stop_the_run_and_leave_the_schedule_alone(workbench):
    long = workbench.reference_run(f"{PLAIN}:build", steps=10)
    short = workbench.reference_run(f"{PLAIN}:build", steps=5)
    assert short.last_step == 5
    assert short.learning_rate[1:6] == long.learning_rate[1:6]
    assert short.loss[1:6] == long.loss[1:6]


def test_a_resumed_run_is_indexed_by_step(workbench):
    reference = workbench.reference_run(f"{PLAIN}:build", steps=8)
    resumed = workbench.resumed_run(f"{PLAIN}:build", steps=8, at=4)
    assert resumed.loss[:5] == [None] * 5
    assert resumed.loss[5:] == reference.loss[5:]
    assert_resume_equivalent(reference, resumed, ["weights", "optimizer-moments", "learning-rate", "loss"])


def test_the_pieces_say_what_differs(workbench):
    target = "tests.targets.mutants:moments_rounded"
    reference = workbench.reference_run(target, steps=8)
    resumed = workbench.resumed_run(target, steps=8, at=4)
    with pytest.raises(ResumeDivergence, match=r"step 5, state-after-loading \(optimizer-moments\)"):
        assert_resume_equivalent(reference, resumed)
    assert_resume_equivalent(reference, resumed, ["learning-rate"])
    with pytest.raises(UsageError, match="quantity 'moments' is not known"):
        assert_resume_equivalent(reference, resumed, ["moments"])


def test_a_partial_and_a_closure_can_be_targets(workbench):
    from tests.targets.plain import make_trainer

    partial = functools.partial(make_trainer, learning_rate=5e-4)
    assert workbench.verify(partial, steps=5, at=[2]).equivalent
    rate = 7e-4

    def build(output_dir):
        return make_trainer(output_dir, learning_rate=rate)

    assert workbench.verify(build, steps=5, at=[2]).equivalent


def test_a_partial_is_taken_from_its_module_which_may_hold_what_cannot_be_sent(workbench):
    from tests.targets import guarded

    partial = functools.partial(functools.partial(guarded.build_at, learning_rate=5e-4), dropout=0.0)
    assert workbench.verify(partial, steps=5, at=[2]).equivalent


def test_what_cannot_be_sent_is_a_clear_error(workbench):
    lock = threading.Lock()

    def build(output_dir):
        return lock

    with pytest.raises(UsageError, match="cannot be sent to another process"):
        workbench.verify(build, steps=5, at=[2])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nothing", "no ':build' was found"),
        ("tests/absent.py:build", "the file tests/absent.py does not exist"),
        ("README.md:build", "is not a Python file"),
        ("tests:", "no ':build' was found"),
        ("tests/targets:build", "is a directory"),
        ("no.such.module:build", "there is no module 'no'"),
        (f"{PLAIN}:absent", "has no 'absent'; functions there: build"),
        (f"{PLAIN}:ROWS", "ROWS is not a function but of type int"),
        (f"{PLAIN}:build_nothing", "returned None, expected a transformers.Trainer"),
        (
            "tests.targets.plain:make_arguments",
            "returned an object of type transformers.training_args.TrainingArguments",
        ),
    ],
)
def test_a_target_that_cannot_be_used_is_wrong_usage(workbench, target, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        workbench.verify(target, steps=6, at=[2])


def test_a_file_that_is_not_python_is_wrong_usage(workbench, tmp_path):
    (tmp_path / "text.py").write_text("not a program at all {\n")
    with pytest.raises(UsageError, match="is not valid Python: line 1"):
        workbench.verify(f"{tmp_path}/text.py:build", steps=6, at=[2])
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UsageError, match=r"binary\.py"):
        workbench.verify(f"{tmp_path}/binary.py:build", steps=6, at=[2])


@pytest.mark.parametrize(("steps", "at"), [(6, [6]), (6, [0]), (6, [-1]), (6, []), (None, [14]), (40, [20])])
def test_a_resume_point_outside_the_run_is_wrong_usage(workbench, steps, at):
    with pytest.raises(UsageError, match=r"not inside the run|no resume point"):
        workbench.verify(f"{PLAIN}:build", steps=steps, at=at)


def test_a_target_that_fails_is_an_error_with_its_exception_and_place(workbench):
    verdict = workbench.verify(f"{PLAIN}:build_broken", steps=6, at=[2])
    assert (verdict.verdict, verdict.exit_status) == ("error", 4)
    assert "RuntimeError: no data here" in verdict.error
    assert "plain.py" in verdict.error
    assert "build_broken" in verdict.error


def test_a_run_that_dies_only_when_resumed_has_diverged(workbench):
    verdict = workbench.verify("tests.targets.others:fails_on_resume", steps=6, at=[2])
    (point,) = verdict.resume_points
    assert verdict.exit_status == 1
    assert point.findings[0].component == "resume-failure"
    assert "ValueError: the vocabulary is gone" in point.findings[0].message


def test_a_run_that_does_not_repeat_itself_is_nondeterministic(workbench):
    verdict = workbench.verify("tests.targets.others:unseeded", steps=6, at=[2])
    assert (verdict.verdict, verdict.exit_status, verdict.reference_repeats) == ("nondeterministic", 3, False)
    assert verdict.findings[0].component == "nondeterminism"
    assert verdict.findings[0].evidence["source"].startswith("what is made before a seed is set")


@pytest.mark.parametrize(
    ("target", "source"),
    [
        ("resumecheck.zoo.chance:unseeded_generator", "a generator without a seed: model.unseeded"),
        ("resumecheck.zoo.chance:rows_salted_by_the_system", "trainer.train_dataset.process: "),
        ("resumecheck.zoo.chance:order_of_a_set", "an order that is taken from a set or a hash"),
        ("tests.targets.chance:python_stream", "the stream rng-python is drawn from before it is seeded"),
        ("tests.targets.chance:kernel", "kernels that torch has no deterministic version of: put_"),
        ("tests.targets.chance:threads", "2 threads, which add up in another order each time"),
        ("tests.targets.chance:rows_from_outside", "the data set or the collator takes something from outside"),
    ],
)
def test_the_likely_source_of_chance_is_named(workbench, target, source):
    verdict = workbench.verify(target, steps=4, at=[2])
    assert verdict.verdict == "nondeterministic"
    assert source in verdict.findings[0].evidence["source"]


def test_an_order_from_a_set_is_told_from_other_nondeterminism(workbench):
    verdict = workbench.verify("tests.targets.others:order_from_a_set", steps=6, at=[2])
    assert verdict.verdict == "nondeterministic"
    assert "PYTHONHASHSEED" in verdict.findings[0].message


def test_of_two_lost_states_both_are_named_the_root_first(workbench):
    (point,) = workbench.verify("tests.targets.others:two_losses", steps=8, at=[4]).resume_points
    assert [finding.component for finding in point.findings] == ["optimizer-moments", "rng-torch"]
    assert {finding.status for finding in point.findings} == {"confirmed"}


def test_state_that_comes_back_different_without_effect_is_latent(workbench):
    verdict = workbench.verify("tests.targets.others:remade_cache", steps=8, at=[4])
    (point,) = verdict.resume_points
    assert verdict.equivalent
    assert [finding.component for finding in point.latent] == ["buffers"]


def test_a_killed_source_run_leaves_the_same_checkpoint(workbench):
    verdict = workbench.verify(f"{PLAIN}:build", steps=6, at=[3], interrupt="sigkill")
    assert verdict.equivalent
    assert verdict.steps_executed == 6 + 6 + 3


def test_an_argument_changed_on_resume_is_named(workbench):
    verdict = workbench.verify(f"{PLAIN}:build", steps=8, at=[4], on_resume={"max_grad_norm": "0.01"})
    (point,) = verdict.resume_points
    assert verdict.verdict == "diverged"
    assert any(finding.component == "arguments" and "max_grad_norm" in finding.message for finding in point.findings)
    with pytest.raises(UsageError, match="has no argument 'max_grad_nrm'"):
        workbench.verify(f"{PLAIN}:build", steps=8, at=[4], on_resume={"max_grad_nrm": "1"})


def test_within_a_tolerance_a_small_loss_of_precision_is_accepted_and_a_large_one_is_not(workbench):
    target = "tests.targets.mutants:one_ulp_off"
    assert workbench.verify(target, steps=8, at=[4], tolerance="close:1e-3,1e-4").equivalent
    verdict = workbench.verify(target, steps=8, at=[4], tolerance="close:0,1e-12")
    assert verdict.verdict == "diverged"


def test_only_the_next_point_is_run_to_where_that_is_enough(workbench):
    verdict = workbench.verify(f"{PLAIN}:build", steps=12, at="every", horizon="next")
    assert verdict.equivalent
    horizons = [point.horizon for point in verdict.resume_points]
    assert horizons == [*["next"] * 9, "end", "end"]
    assert verdict.steps_executed <= 3.2 * 12


def test_one_resumed_run_crosses_the_last_boundary_where_that_is_affordable():
    every = list(range(1, 60))
    plan = horizons(every, "next", 60, [56, 50])
    assert [point for point, horizon, _ in plan if horizon == "end"] == [49, 59]
    assert sum(until - point for point, _, until in plan) + 120 <= 3.2 * 60
    assert [item[0] for item in horizons(every, "next", 60, [30]) if item[1] == "end"] == [48, 59]
    assert horizons([3, 7], "end", 10, []) == [(3, "end", 10), (7, "end", 10)]


def test_points_are_spread_as_asked():
    assert spread_points("every", 4, 7) == [1, 2, 3]
    assert spread_points("epoch", 15, 7) == [7, 14]
    assert spread_points(None, 20, 7) == [3, 7, 10]
    assert spread_points(None, 5, 7) == [2]
    assert spread_points("2-per-epoch", 14, 6) == [2, 5, 8, 11]
    with pytest.raises(UsageError, match="no epoch ends inside"):
        spread_points("epoch", 5, 7)
    with pytest.raises(UsageError, match="expected steps such as 3,7"):
        spread_points("sometimes", 5, 7)


@pytest.mark.parametrize(
    ("target", "component", "step"),
    [
        ("average_of_weights", "callbacks", 5),
        ("skips_one_too_few", "data-position", 5),
        ("holds_another_optimizer", "lr-scheduler", 5),
        ("ignores_the_checkpoint", "counters", 5),
    ],
)
def test_what_is_lost_by_other_mechanisms_is_named(workbench, target, component, step):
    (point,) = workbench.verify(f"tests.targets.others:{target}", steps=10, at=[4]).resume_points
    assert point.findings[0].component == point.first_divergence.component == component
    assert point.first_divergence.step == step


def test_a_copy_of_the_weights_that_each_step_takes_anew_is_not_lost(workbench):
    assert workbench.verify("tests.targets.others:copy_of_weights", steps=10, at=[4]).equivalent


def test_noise_accepts_what_repeating_does_and_finds_what_is_lost_beyond_it(workbench):
    clean = workbench.verify("tests.targets.others:trembling", steps=8, at=[4], tolerance="noise")
    assert (clean.verdict, clean.reference_repeats) == ("equivalent", False)
    assert any("could have been missed" in note for note in clean.notes)
    lost = workbench.verify("tests.targets.others:trembling_and_forgetful", steps=8, at=[4], tolerance="noise")
    assert lost.verdict == "diverged"
    assert lost.resume_points[0].findings[0].component == "optimizer-moments"
    bitwise = workbench.verify("tests.targets.others:trembling", steps=8, at=[4])
    assert bitwise.verdict == "nondeterministic"


def test_what_acts_late_is_found_from_every_point_as_by_runs_to_the_end(workbench):
    target = "tests.targets.others:acts_late"
    to_next = workbench.verify(target, steps=12, at="every", horizon="next")
    to_end = workbench.verify(target, steps=12, at="every")
    assert [point.verdict for point in to_next.resume_points] == [point.verdict for point in to_end.resume_points]
    assert to_end.resume_points[0].verdict == "diverged"


def test_a_cosmetic_counter_costs_one_run_to_the_end_not_all(workbench):
    verdict = workbench.verify("tests.targets.mutants:python_counter_twin", steps=12, at="every", horizon="next")
    assert verdict.equivalent
    assert [point.horizon for point in verdict.resume_points].count("end") <= 3


def test_a_second_resume_shows_what_the_first_does_not(workbench):
    once = workbench.verify("tests.targets.others:second_resume_is_wrong", steps=12, at=[4])
    assert once.equivalent
    twice = workbench.verify("tests.targets.others:second_resume_is_wrong", steps=12, at=[4], twice=True)
    assert [(point.step, point.resumes, point.verdict) for point in twice.resume_points] == [
        (4, 1, "equivalent"),
        (8, 2, "diverged"),
    ]
    assert "model.calls: expected 8, got 4" in twice.resume_points[1].findings[0].message
    assert workbench.verify("tests.targets.others:second_resume_is_right", steps=12, at=[4], twice=True).equivalent
