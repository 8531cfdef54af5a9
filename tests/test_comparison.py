"""`diff`: recorded runs that are equal have no difference, and what is changed in one is named first."""

import contextlib
import json
from importlib.resources import files

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import resumecheck
from resumecheck.cli import main
from resumecheck.errors import UsageError
from resumecheck.trajectory import Micro, Row, TrajectoryWriter

SCHEMA = json.loads((files("resumecheck") / "schema" / "diff-1.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def valid(comparison):
    VALIDATOR.validate(json.loads(json.dumps(comparison.to_json(), allow_nan=False)))
    return comparison


# --- recorded runs ----------------------------------------------------------------------------------------------------


def rows(steps, start=0):
    yield Row(start, start=True, state={"weights": {"parameter|w": f"float32[4]#{start}"}})
    for step in range(start + 1, steps + 1):
        yield Row(
            step,
            micro=[Micro(f"dict#{step}", [step], 1.0 / step)],
            streams={"rng-python": f"stream#{step}"},
            gradients={"w": f"float32[4]#g{step}"},
            grad_norm=0.5,
            lr=[0.01],
            state={"weights": {"parameter|w": f"float32[4]#{step}"}},
            events=[{"kind": "log", "logs": {"loss": 1.0 / step}}],
        )


def record(directory, found):
    writer = TrajectoryWriter(directory)
    writer.describe(kind="reference")
    for row in found:
        writer.append(row)
    writer.close()
    return directory


@pytest.fixture
def recorded(tmp_path):
    """Two records of six steps; what is given is done to the rows of the second."""

    def make(change=lambda row: None, start=0):
        second = list(rows(6, start))
        for row in second:
            change(row)
        return record(tmp_path / "a", rows(6)), record(tmp_path / "b", second)

    return make


def test_two_equal_runs_are_equal(recorded):
    comparison = valid(resumecheck.diff(*recorded()))
    assert (comparison.equal, comparison.compared, comparison.differences) == (True, 6, ())


def test_a_run_that_starts_later_is_compared_from_there_whichever_comes_first(recorded):
    a, b = recorded(start=3)
    for pair in ((a, b), (b, a)):
        comparison = resumecheck.diff(*pair)
        assert (comparison.equal, comparison.compared) == (True, 3)


CHANGES = {
    "learning-rate": (lambda row: setattr(row, "lr", [0.02]), "lr-scheduler", 0.01),
    "loss": (lambda row: setattr(row.micro[0], "loss", 0.5), "hidden-state", 0.3),
    "batch-content": (lambda row: setattr(row.micro[0], "batch", "dict#x"), "data-content", None),
    "sample-ids": (lambda row: setattr(row.micro[0], "ids", [99]), "data-order", None),
    "random-streams": (lambda row: row.streams.update({"rng-python": "stream#x"}), "rng-python", None),
    "state-after-step": (lambda row: row.state["weights"].update({"parameter|w": "float32[4]#x"}), "weights", None),
}


@pytest.mark.parametrize("rung", CHANGES)
def test_the_first_difference_is_named_by_step_rung_and_component(rung, recorded):
    change, component, apart = CHANGES[rung]

    def at_step_5(row):
        if row.step == 5:
            change(row)
            row.state["weights"]["parameter|w"] = "float32[4]#effect"

    comparison = valid(resumecheck.diff(*recorded(at_step_5)))
    first = comparison.first_divergence
    assert (first.step, first.rung, first.component) == (5, rung, component)
    assert comparison.exit_status == 1
    if apart is not None:
        assert first.max_abs == pytest.approx(apart)
        assert first.max_ulp > 0


def test_what_no_step_reads_is_no_difference(recorded):
    def log_otherwise(row):
        if row.events:
            row.events[0]["logs"] = {"loss": 7.0}

    comparison = resumecheck.diff(*recorded(log_otherwise))
    assert comparison.equal
    assert {divergence.rung for divergence in comparison.without_effect} == {"logs"}


def test_a_run_that_ends_earlier_differs_in_its_number_of_steps(tmp_path):
    comparison = resumecheck.diff(record(tmp_path / "a", rows(6)), record(tmp_path / "b", rows(5)))
    first = comparison.first_divergence
    assert (first.rung, first.expected, first.got) == ("number-of-steps", 6, 5)


def test_a_tolerance_takes_small_differences_and_no_large_ones(recorded):
    def a_little(row):
        if row.micro:
            row.micro[0].loss += 1e-6

    a, b = recorded(a_little)
    assert not resumecheck.diff(a, b).equal
    assert resumecheck.diff(a, b, tolerance="close:1e-4,0").equal
    assert not resumecheck.diff(a, b, tolerance="close:1e-9,0").equal


def test_tensors_that_both_runs_have_kept_are_measured(recorded):
    def change(row):
        if row.step == 5:
            row.state["weights"]["parameter|w"] = "float32[4]#x"

    a, b = recorded(change)
    tensor = torch.ones(4)
    torch.save({"weights|parameter|w": tensor}, a / "tensors-5.pt")
    other = tensor.clone()
    other[2] = torch.nextafter(other[2], torch.tensor(2.0))
    torch.save({"weights|parameter|w": other}, b / "tensors-5.pt")
    first = resumecheck.diff(a, b).first_divergence
    assert (first.name, first.max_ulp, first.expected) == ("w[2]", 1, 1.0)


@pytest.mark.slow
def test_a_resumed_run_parts_from_the_uninterrupted_one_in_what_it_lost(workbench):
    from tests.examples.masked_words import build, build_keyed

    for target, equal in ((build, False), (build_keyed, True)):
        reference = workbench.reference_run(target, steps=6)
        resumed = workbench.resumed_run(target, at=4, steps=6)
        comparison = valid(resumecheck.diff(reference.directory, resumed.directory))
        assert comparison.equal is equal
        if not equal:
            first = comparison.first_divergence
            assert (first.step, first.rung, first.component) == (5, "batch-content", "data-content")


def test_a_directory_of_several_recorded_runs_is_wrong_usage(recorded):
    a, b = recorded()
    with pytest.raises(UsageError, match="several recorded runs; give one of them: a, b"):
        resumecheck.diff(a.parent, b)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_tells_and_writes_what_it_found(recorded, tmp_path, capsys):
    def change(row):
        if row.step == 5:
            row.lr = [0.02]

    a, b = recorded(change)
    assert main(["diff", str(a), str(b), "--json", str(tmp_path / "diff.json")]) == 1
    told = capsys.readouterr().out
    assert "step 5, learning-rate" in told
    assert "lr-scheduler" in told
    VALIDATOR.validate(json.loads((tmp_path / "diff.json").read_text()))
    assert main(["diff", str(a), str(a)]) == 0


def test_wrong_usage_is_told_in_one_message(recorded, tmp_path, capsys):
    a, b = recorded()
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "steps.jsonl").write_text('{"step": []}\n')
    (tmp_path / "torn" / "run.json").write_text('{"format": 1}')
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "steps.jsonl").write_text("[]\n")
    (tmp_path / "lists" / "run.json").write_text("[]")
    for got in ("empty", "notes.txt", "torn", "lists", "nowhere"):
        assert main(["diff", str(a), str(tmp_path / got)]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) <= 3
    assert main(["diff", str(a), str(b), "--tolerance", "noise"]) == 2
    assert main(["diff", str(a), str(b), "--tolerance", "wrong"]) == 2


def test_runs_without_a_common_step_cannot_be_compared(tmp_path):
    a, b = record(tmp_path / "a", rows(3)), record(tmp_path / "b", rows(9, start=5))
    with pytest.raises(UsageError, match="no step in common"):
        resumecheck.diff(a, b)


def test_damage_at_random_is_told_and_never_raised(recorded):
    a, b = recorded()
    good = (b / "steps.jsonl").read_text()

    @settings(max_examples=150, deadline=None)
    @given(
        st.integers(0, len(good) - 1),
        st.sampled_from([*'0123456789"[]{}:,xn-', "null", "[[", '"a"']),
        st.integers(0, 9),
    )
    def damage(place, put, taken):
        (b / "steps.jsonl").write_text(good[:place] + put + good[place + taken :])
        with contextlib.suppress(UsageError):
            resumecheck.diff(a, b)

    damage()


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
