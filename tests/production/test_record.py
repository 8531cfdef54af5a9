"""A record that a kill or something else has damaged, and the command that reads it."""

import contextlib
import dataclasses
import json
import shutil
from importlib.resources import files

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumecheck.cli import main
from resumecheck.errors import UsageError
from resumecheck.production import record as record_module
from resumecheck.production.audit import audit as audit_record
from resumecheck.production.result import Audit, Resume, Segment
from resumecheck.verdict import Divergence, Finding, StepPair
from tests.production.runs import SCHEMA, VALIDATOR, Run, audit, only


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The record of a run that was killed at step 7 and resumed from step 4."""
    run = Run(tmp_path_factory.mktemp("run"))
    run.killed(7)
    run.resumed(4)
    return run.record


@pytest.fixture
def record(recorded, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(recorded, tmp_path / "record")


FACTS = ("environment", "arguments", "versions", "absent_files")


def rows_of(record, number=1):
    return record / f"segment-{number:03d}" / "steps.jsonl"


# --- torn and damaged -----------------------------------------------------------------------------------------------


def test_a_torn_last_line_is_left_out_and_told(record):
    text = rows_of(record).read_bytes()
    rows_of(record).write_bytes(text[:-100])
    found = audit(record)
    assert (only(found).verdict, only(found).executed_twice) == ("exact", 1)
    assert found.segments[0].torn
    assert found.notes == ("segment 1: the last line of its record is torn, as a kill leaves it, and is left out",)


def test_a_first_line_that_is_torn_is_a_start_without_a_step(record):
    rows_of(record, 2).write_bytes(rows_of(record, 2).read_bytes()[:100])
    found = audit(record)
    assert (found.verdict, found.segments[1].last_step, found.segments[1].torn) == ("no-resume", None, True)


def test_a_line_that_is_damaged_is_wrong_usage_and_named(record, capsys):
    lines = rows_of(record).read_text().splitlines(keepends=True)
    rows_of(record).write_text("".join([*lines[:3], lines[3][:50] + "\n", *lines[4:]]))
    assert main(["audit", str(record)]) == 2
    told = capsys.readouterr().err
    assert f"the record is damaged: {rows_of(record)}, line 4" in told
    assert len(told.strip().splitlines()) == 1


def test_a_row_that_is_missing_is_wrong_usage_and_named(record):
    lines = rows_of(record).read_text().splitlines(keepends=True)
    rows_of(record).write_text("".join(lines[:3] + lines[4:]))
    with pytest.raises(UsageError, match=r"steps.jsonl: there is no row of step 3"):
        audit_record(record)


def test_facts_that_are_damaged_are_wrong_usage(record):
    (record / "segment-002" / "run.json").write_text("{")
    with pytest.raises(UsageError, match="the record is damaged"):
        audit_record(record)


def test_a_segment_that_was_made_and_not_begun_is_no_damage(record):
    (record / "segment-003").mkdir()
    found = audit(record)
    assert (found.verdict, len(found.segments)) == ("exact", 3)
    assert "segment 3 recorded no step" in found.notes[0]


def test_what_is_no_record_is_wrong_usage(record, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    told = {
        tmp_path / "empty": "expected the record of a production run",
        tmp_path / "file": "no recorded run is there",
        tmp_path / "nowhere": "no recorded run is there",
        record / "segment-001": f"it is one recorded run; give {record}",
    }
    for path, text in told.items():
        assert main(["audit", str(path)]) == 2
        assert text in capsys.readouterr().err


def test_damage_at_random_is_told_and_never_raised(record):
    good = rows_of(record, 2).read_text()

    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(0, len(good) - 1),
        st.sampled_from([*'0123456789"[]{}:,xn-\n', "null", "[[", '"a"']),
        st.integers(0, 9),
    )
    def damage(place, put, taken):
        rows_of(record, 2).write_text(good[:place] + put + good[place + taken :])
        with contextlib.suppress(UsageError):
            audit(record)

    damage()


@pytest.mark.parametrize("value", [None, [], 3, "text", {"world_size": "x"}], ids=str)
@pytest.mark.parametrize(
    "fact",
    ["environment", "arguments", "versions", "absent_files", "steps_per_epoch", "max_steps", "started", "failed"],
)
def test_facts_of_other_types_are_never_raised(record, fact, value):
    file = record / "segment-002" / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), fact: value}))
    with contextlib.suppress(UsageError):
        audit(record)


# --- what changed between segments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("versions", "torch", "0.1"),
        ("environment", "world_size", 8),
        ("environment", "torch.num_threads", 99),
        ("arguments", "seed", 9),
    ],
)
def test_what_changed_is_noted_although_the_resume_is_exact(record, kind, name, value):
    file = record / "segment-002" / "run.json"
    facts = json.loads(file.read_text())
    facts[kind][name] = value
    file.write_text(json.dumps(facts))
    found = audit(record)
    assert only(found).verdict == "exact"
    assert only(found).notes[0].startswith(f"changed {kind}: {name}: expected ")
    assert any("of 8 processes the first is recorded" in note for note in found.notes) is (name == "world_size")


def test_digests_of_another_kind_of_device_are_not_compared(record):
    file = record / "segment-002" / "run.json"
    facts = json.loads(file.read_text())
    facts["environment"]["device"] = "cuda"
    file.write_text(json.dumps(facts))
    resume = only(audit(record))
    assert resume.verdict == "not-checkable"
    assert "digests of a GPU and of a CPU cannot be compared" in resume.notes[0]


def test_a_difference_in_one_digest_is_a_divergence(record):
    # The mutant of `test_a_killed_run_that_is_resumed_is_exact`: without it the rows might not be compared at all.
    lines = rows_of(record, 2).read_text().splitlines()
    row = json.loads(lines[2])
    assert row["step"] == 6
    row["state"]["weights"]["all|"] = "41 values#0"
    rows_of(record, 2).write_text("\n".join([*lines[:2], json.dumps(row), *lines[3:]]) + "\n")
    resume = only(audit(record))
    assert resume.verdict == "diverged"
    first = resume.first_divergence
    assert (first.step, first.rung, first.component) == (6, "state-after-step", "hidden-state")


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_tells_and_writes_what_it_found(record, tmp_path, capsys):
    assert main(["audit", str(record), "--json", str(tmp_path / "audit.json")]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"EXACT  {record}: every resume was exact")
    assert "step 4 of segment 1     exact, 2 steps executed twice" in told
    found = json.loads((tmp_path / "audit.json").read_text())
    VALIDATOR.validate(found)
    assert found["verdict"] == "exact"


def test_the_schema_requires_exactly_the_fields_of_an_audit():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    definitions = {Audit: SCHEMA, Resume: SCHEMA["$defs"]["resume"], Segment: SCHEMA["$defs"]["segment"]}
    for fact, definition in definitions.items():
        fields = {field.name for field in dataclasses.fields(fact)} | ({"schema"} if fact is Audit else set())
        assert set(definition["properties"]) == set(definition["required"]) == fields


def test_the_schema_has_the_parts_of_the_schema_of_a_verdict():
    verdict = json.loads((files("resumecheck") / "schema" / "verdict-1.json").read_text(encoding="utf-8"))["$defs"]
    for name, part in SCHEMA["$defs"].items():
        assert name in ("segment", "resume") or part == verdict[name]
    for fact, name in ((Divergence, "divergence"), (Finding, "finding"), (StepPair, "step_pair")):
        assert set(SCHEMA["$defs"][name]["required"]) == {field.name for field in dataclasses.fields(fact)}


@pytest.mark.parametrize("change", [{"verdict": "fine"}, {"schema": 2}, {"segments": [{}]}], ids=str)
def test_what_is_no_audit_is_invalid(record, change):
    assert not VALIDATOR.is_valid({**audit(record).to_json(), **change})


# --- segments -------------------------------------------------------------------------------------------------------


def test_no_two_starts_get_one_segment(tmp_path, monkeypatch):
    assert [record_module.claim_segment(tmp_path).name for _ in range(2)] == ["segment-001", "segment-002"]
    monkeypatch.setattr(record_module, "_segments", lambda directory: [])  # as another process saw it before
    assert record_module.claim_segment(tmp_path).name == "segment-003"
