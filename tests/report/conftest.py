"""One verdict of each outcome, and two checks that are really made: of a mutant of the zoo and of its clean twin."""

import pytest
from verdicts import equivalent_point, make_verdict, resume_point

from resumecheck.report.checked import Checked
from resumecheck.verdict import Finding
from resumecheck.zoo.catalogue import by_name


@pytest.fixture
def equivalent():
    return make_verdict("equivalent", equivalent_point(4), equivalent_point(8))


@pytest.fixture
def diverged():
    return make_verdict(
        "diverged", equivalent_point(2), resume_point(4), resume_point(9), notes=("load_best_model_at_end is off",)
    )


@pytest.fixture
def nondeterministic():
    cause = Finding(
        "RC602", "nondeterminism", "confirmed", "the run does not repeat itself: loss at step 3", "Seed it."
    )
    return make_verdict("nondeterministic", findings=(cause,))


@pytest.fixture
def failed():
    return make_verdict("error", error="ValueError: no data\nin train.py, line 7, in build", steps=0)


@pytest.fixture(params=["equivalent", "diverged", "nondeterministic", "failed"])
def verdict(request):
    """Each outcome in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def mutant(workbench):
    """The check of a mutant that loses the learning-rate schedule."""
    return check(workbench, by_name("scheduler_not_restored").mutant)


@pytest.fixture(scope="session")
def twin(workbench):
    """The check of its clean twin, which is also resumed a second time."""
    return check(workbench, by_name("scheduler_not_restored").twin, twice=True)


def check(workbench, target, **options):
    verdict = workbench.verify(target, steps=12, at=[4, 9], **options)
    return Checked(verdict, workbench.evidence())
