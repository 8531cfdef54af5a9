"""resumecheck finds the trainer equivalent whatever is chosen, and finds what is broken in it on purpose."""

import functools

import pytest

from tests.embedding import targets, tiny


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("targets")
    tiny.write_encoder(directory / "encoder")
    tiny.write_rows(directory / "data" / "train.jsonl", tiny.rows(tiny.ROWS))
    return str(directory)


#: Batches to a step -> points in the middle of the first epoch of 7 batches, at its end, and in the second.
POINTS = {1: [3, 7, 10], 2: [2, 4, 6], 3: [2, 3, 5]}

#: Every pair of pooling, batches to a step and workers is there.
CHOICES = [
    ("cls", 1, 0),
    ("mean", 2, 0),
    ("last_token", 3, 0),
    pytest.param("cls", 3, 0, marks=pytest.mark.slow),
    pytest.param("last_token", 1, 0, marks=pytest.mark.slow),
    pytest.param("cls", 2, 2, marks=pytest.mark.slow),
    pytest.param("mean", 1, 2, marks=pytest.mark.slow),
    pytest.param("mean", 3, 2, marks=pytest.mark.slow),
    pytest.param("last_token", 2, 2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("pooling", "accumulation", "workers"), CHOICES)
def test_the_trainer_is_equivalent(workbench, directory, pooling, accumulation, workers):
    target = functools.partial(
        targets.build,
        directory=directory,
        sentence_pooling_method=pooling,
        gradient_accumulation_steps=accumulation,
        dataloader_num_workers=workers,
    )
    verdict = workbench.verify(target, at=POINTS[accumulation])
    assert verdict.verdict == "equivalent", verdict.to_json()
    assert [point.step for point in verdict.resume_points] == POINTS[accumulation]
    assert verdict.steps == {1: 14, 2: 8, 3: 6}[accumulation]


def test_a_resume_with_another_number_of_workers_is_the_same_run(workbench, directory):
    verdict = workbench.verify(
        functools.partial(targets.build, directory=directory), at=[6], on_resume={"dataloader_num_workers": "2"}
    )
    assert verdict.equivalent, verdict.to_json()


@pytest.mark.parametrize(
    ("factory", "at", "component"),
    [
        (targets.build_with_global_negatives, 2, "data-content"),
        (targets.build_with_counted_epochs, 6, "data-order"),
    ],
)
def test_what_is_broken_on_purpose_is_found_and_named(workbench, directory, factory, at, component):
    verdict = workbench.verify(functools.partial(factory, directory=directory), at=[at])
    (point,) = verdict.resume_points
    assert verdict.verdict == "diverged"
    assert (point.first_divergence.step, point.first_divergence.component) == (at + 1, component)
    assert point.findings[0].component == component
