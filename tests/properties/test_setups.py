"""Random set-ups: a clean one is never blamed; a lost state is found unless plain runs show that it changes nothing.

More of them, with the seed and the numbers that were measured: docs/evidence.md.
"""

import pytest
from hypothesis import HealthCheck, given, settings

from resumecheck.strategies import MUTATIONS, Setup, setups
from tests.properties.judge import judge
from tests.properties.plain_runs import PlainRuns


@pytest.fixture(scope="session")
def plain_runs():
    runs = PlainRuns()
    yield runs
    runs.close()


def examples(number):
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def require_no_mistake(workbench, plain_runs, setup):
    judged = judge(workbench, plain_runs, setup)
    assert not judged.mistake, judged.explanation


@examples(2)
@given(setups())
def test_a_clean_set_up_is_not_blamed(workbench, plain_runs, setup):
    require_no_mistake(workbench, plain_runs, setup)


@examples(2)
@given(setups(mutations=MUTATIONS))
def test_a_mutation_is_found_where_it_changes_the_run(workbench, plain_runs, setup):
    require_no_mistake(workbench, plain_runs, setup)


def test_a_resumed_run_that_ends_without_a_step_is_another_run(workbench, plain_runs):
    require_no_mistake(workbench, plain_runs, Setup(batch_size=1, epochs=2, mutation="other_batch_size", at=(15,)))


@pytest.mark.slow
@examples(12)
@given(setups())
def test_clean_set_ups_are_not_blamed(workbench, plain_runs, setup):
    require_no_mistake(workbench, plain_runs, setup)


@pytest.mark.slow
@examples(12)
@given(setups(mutations=MUTATIONS))
def test_mutations_are_found_where_they_change_the_run(workbench, plain_runs, setup):
    require_no_mistake(workbench, plain_runs, setup)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_changes_some_run_or_is_one_that_changes_none(plain_runs, name):
    """A mutation that changed no run at all would make the property above hold for nothing."""
    needs = {field: values[0] for field, values in MUTATIONS[name].needs.items()}
    data = {"rows": 12, "steps": 8} | needs | {"mutation": name, "at": (2, 6)}
    assert ("a step" in plain_runs.differs(Setup(**data)).values()) is (name not in HARMLESS)


#: The checkpoint's rate is restored over that of the arguments, the seed is used when the trainer is made, and a
#: counter for display acts on nothing.
HARMLESS = ("other_rate", "other_seed", "counter_for_display")
