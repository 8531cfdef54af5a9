"""Trainers of other projects, unmodified: what survives a resume there, and what does not."""

import pytest

pytestmark = pytest.mark.slow

TARGETS = "tests.targets.third_party"


@pytest.mark.parametrize("name", ["default_sampler", "no_duplicates"])
def test_sentence_transformers_is_equivalent(workbench, name):
    pytest.importorskip("sentence_transformers")
    verdict = workbench.verify(f"{TARGETS}:{name}", steps=12, at=[4, 9])
    assert verdict.verdict == "equivalent", verdict.to_json()


def test_the_trained_parameters_of_a_sentence_transformers_loss_are_lost(workbench):
    pytest.importorskip("sentence_transformers")
    (point,) = workbench.verify(f"{TARGETS}:loss_with_a_parameter", steps=10, at=[4]).resume_points
    assert point.verdict == "diverged"
    assert (point.findings[0].component, point.findings[0].status) == ("loss-parameters", "confirmed")
    assert point.first_divergence.name.startswith("trainer.loss.classifier")


def test_the_fine_tuner_of_trl_is_equivalent(workbench):
    pytest.importorskip("trl", reason="TRL is not installed: pip install trl")
    verdict = workbench.verify(f"{TARGETS}:supervised_fine_tuning", steps=12, at=[4, 9])
    assert verdict.verdict == "equivalent", verdict.to_json()
    assert (verdict.reference_repeats, verdict.steps) == (True, 12)
