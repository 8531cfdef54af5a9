"""Every mutant changes the run and no twin does, measured without resumecheck's engine.

A reference, a run that saves, and a run resumed from each of its checkpoints, each in a process of its own. Compared
are all parameters and buffers at the end, bit for bit, and the number of steps.
"""

import dataclasses

import pytest

from resumecheck.zoo.catalogue import SPECIMENS
from tests.zoo.harness import End

#: One specimen of each component for `make quick`; the others are slow because they are many.
FIRST = {specimen.component: specimen for specimen in reversed(SPECIMENS)}
CASES = [
    pytest.param(specimen, id=specimen.name, marks=() if FIRST[specimen.component] is specimen else (pytest.mark.slow,))
    for specimen in SPECIMENS
]


@dataclasses.dataclass(frozen=True)
class Outcome:
    reference: End
    saving: End
    resumed: dict[int, End]


@pytest.fixture
def observe(servers, tmp_path):
    """Run a target in all three ways; the saving run has another hash seed than the reference and the resumed runs."""
    first, second = servers

    def run(target, at):
        reference = first.run(target, tmp_path / "reference")
        saving = second.run(target, tmp_path / "saving", save_at=at)
        resumed = {
            step: first.run(target, tmp_path / "saving", resume_from=tmp_path / "saving" / f"checkpoint-{step}")
            for step in at
        }
        return Outcome(reference, saving, resumed)

    return run


@pytest.mark.parametrize("specimen", CASES)
def test_a_mutant_changes_the_run(observe, specimen):
    seen = observe(specimen.mutant, specimen.at)
    assert not seen.reference.error
    assert not seen.saving.error
    if specimen.component in ("saving", "nondeterminism"):
        assert seen.saving.result != seen.reference.result
        return
    assert seen.saving.result == seen.reference.result
    for end in seen.resumed.values():
        if specimen.component == "resume-failure":
            assert end.error
        else:
            assert not end.error
            assert end.result != seen.reference.result


@pytest.mark.parametrize("specimen", CASES)
def test_a_twin_does_not(observe, specimen):
    seen = observe(specimen.twin, specimen.at)
    for end in (seen.reference, seen.saving, *seen.resumed.values()):
        assert not end.error
        assert end.result == seen.reference.result
    assert seen.reference.global_step == seen.reference.steps_run
    for step, end in seen.resumed.items():
        assert step + end.steps_run == seen.reference.steps_run
