"""What can be checked, and what cannot be is said."""

import functools
import threading

import pytest
from masked_words import SentencesMaskedByKey, build, build_keyed

from resumecheck import ResumecheckError, TargetError, UsageError

pytestmark = pytest.mark.resumecheck(steps=4, at=[2])


def build_here(output_dir):
    return build_keyed(output_dir)


def fails(output_dir):
    raise ValueError("there is no data")


def test_a_function_of_another_module(resumecheck):
    verdict = resumecheck(build_keyed)
    assert [point.step for point in verdict.resume_points] == [2]
    assert verdict.steps == 4


def test_a_function_of_the_test_file(resumecheck):
    assert resumecheck(build_here).equivalent


def test_a_partial(resumecheck):
    assert resumecheck(functools.partial(build, sentences=SentencesMaskedByKey)).equivalent


def test_a_closure(resumecheck):
    rate = 3e-4

    def build_with_rate(output_dir):
        trainer = build_keyed(output_dir)
        trainer.args.learning_rate = rate
        return trainer

    assert resumecheck(build_with_rate).equivalent


def test_a_closure_over_what_cannot_be_sent(resumecheck):
    lock = threading.Lock()
    with pytest.raises(UsageError, match="cannot be sent to another process"):
        resumecheck(lambda output_dir: lock)


def test_a_factory_of_something_else(resumecheck):
    with pytest.raises(UsageError, match=r"expected a transformers\.Trainer"):
        resumecheck(lambda output_dir: None)


def test_a_name_of_nothing(resumecheck):
    with pytest.raises(UsageError, match="masked_words has no 'nothing'; functions there: build, build_keyed"):
        resumecheck("masked_words.py:nothing")
    with pytest.raises(UsageError, match="there is no module 'no_such_package'"):
        resumecheck("no_such_package:build")


def test_a_factory_that_fails(resumecheck):
    with pytest.raises(TargetError, match=r"(?s)ERROR .*there is no data"):
        resumecheck(fails)


def test_a_run_that_does_not_repeat_itself(resumecheck):
    def build_unseeded(output_dir):
        import os

        import torch

        trainer = build_keyed(output_dir)
        torch.nn.init.normal_(
            trainer.model.classifier.weight,
            generator=torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big")),
        )
        return trainer

    with pytest.raises(ResumecheckError, match="NONDETERMINISTIC"):
        resumecheck(build_unseeded)


def test_a_resume_point_past_the_end(resumecheck):
    with pytest.raises(UsageError, match="resume point 9 is not inside the run of 4 steps"):
        resumecheck(build_keyed, at=9)


def test_a_wrong_option_of_a_call(resumecheck, resumed_run):
    with pytest.raises(UsageError, match=r"::test_a_wrong_option_of_a_call: resumecheck\(\.\.\.\): 'step' is not an"):
        resumecheck(build_keyed, step=4)
    with pytest.raises(UsageError, match=r"resumed_run\(\.\.\.\): at: \[1, 2\] is not a step"):
        resumed_run(build_keyed, at=[1, 2])


def test_pieces_of_an_equal_run(reference_run, resumed_run, assert_resume_equivalent):
    reference, resumed = reference_run(build_keyed), resumed_run(build_keyed, at=2)
    assert_resume_equivalent(reference, resumed)
    assert resumed.loss[3:] == reference.loss[3:]
    assert resumed.loss[:3] == [None, None, None]


def test_what_fails_while_it_is_made(reference_run):
    reference_run(fails)
