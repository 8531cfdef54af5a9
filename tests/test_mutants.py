"""Ten lost states: each is found at the right step under the right name, and its clean twin is left alone."""

import pytest

# name, component, resume point, first step that differs
MUTANTS = [
    ("scheduler_not_restored", "lr-scheduler", 4, 5),
    ("moments_rounded", "optimizer-moments", 4, 5),
    ("other_names", "weights", 4, 5),
    ("loss_parameter", "loss-parameters", 4, 5),
    ("global_random_in_data", "data-content", 4, 5),
    ("python_counter", "hidden-state", 4, 5),
    ("sampler_starts_again", "data-order", 9, 10),
    ("saving_draws", "saving", 4, 5),
    ("one_ulp_off", "weights", 4, 5),
    ("buffer_not_persistent", "buffers", 4, 5),
]


@pytest.mark.parametrize(("name", "component", "point", "step"), MUTANTS)
def test_a_mutant_diverges_at_the_right_step_with_the_right_component(workbench, name, component, point, step):
    verdict = workbench.verify(f"tests.targets.mutants:{name}", steps=12, at=[point])
    (found,) = verdict.resume_points
    assert (verdict.verdict, verdict.exit_status) == ("diverged", 1)
    assert found.findings[0].component == component
    assert found.findings[0].status == "confirmed"
    assert found.first_divergence.component == component
    assert found.first_divergence.step == step


@pytest.mark.parametrize("name", [mutant[0] for mutant in MUTANTS])
def test_the_clean_twin_is_equivalent(workbench, name):
    verdict = workbench.verify(f"tests.targets.mutants:{name}_twin", steps=12, at=[4, 9])
    assert verdict.verdict == "equivalent", verdict.to_json()
    assert verdict.reference_repeats


def test_one_ulp_is_measured_as_one_ulp(workbench):
    (point,) = workbench.verify("tests.targets.mutants:one_ulp_off", steps=12, at=[4]).resume_points
    assert point.first_divergence.name == "bert.encoder.layer.1.attention.self.key.weight[3, 4]"
    assert point.first_divergence.max_ulp == 1


def test_hidden_state_is_named_by_its_path_with_both_values(workbench):
    (point,) = workbench.verify("tests.targets.mutants:python_counter", steps=12, at=[4]).resume_points
    assert "model.calls: expected 4, got 0" in point.findings[0].message
