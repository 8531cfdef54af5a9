import pytest
from masked_words import build_keyed


@pytest.mark.resumecheck(steps=12, at=[4, 9])
def test_training_survives_an_interruption(resumecheck):
    verdict = resumecheck(build_keyed)  # raises ResumeDivergence, whose text is the explanation
    assert verdict.equivalent


def test_the_pieces(reference_run, resumed_run, assert_resume_equivalent):
    reference = reference_run(build_keyed, steps=12)
    resumed = resumed_run(build_keyed, steps=12, at=4)
    assert_resume_equivalent(reference, resumed, quantities=["weights", "optimizer-moments", "learning-rate", "loss"])
    assert resumed.loss[5:] == reference.loss[5:]  # trajectories are plain sequences by step
