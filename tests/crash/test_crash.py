"""Targets whose save is killed at every event in its files; what comes back is named."""

import dataclasses
import json
from collections import Counter
from functools import partial
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from resumecheck.crash.experiment import crash, died_at, seen_events, spread, ways_to_die
from resumecheck.crash.verdict import ENDINGS, SCHEMA_VERSION, CrashVerdict, Death, outcome_of
from resumecheck.errors import UsageError
from resumecheck.runs.faults import FileEvent
from resumecheck.verdict import Finding
from tests.embedding import targets as embedding
from tests.embedding import tiny

TARGETS = Path(__file__).parents[1] / "targets"
SCHEMA = json.loads((files("resumecheck") / "schema" / f"crash-{SCHEMA_VERSION}.json").read_text(encoding="utf-8"))


@pytest.fixture
def endings(workbench):
    """The outcome after each death of a target of crashes.py."""

    def killed(name, **options):
        return crash(f"{TARGETS}/{name}", bench=workbench.bench, **options)

    return killed


def by_event(verdict):
    """(kind, name of the file, torn) -> ending."""
    return {(death.kind, Path(death.path).name, death.torn): death.ending for death in verdict.deaths}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole_or_not", "written_by_resumecheck"])
def test_a_save_that_is_whole_or_not_there_is_equivalent_at_every_event(endings, name):
    verdict = endings(f"crashes.py:{name}")
    assert (verdict.verdict, verdict.exit_status) == ("equivalent", 0), verdict
    assert [death.kind for death in verdict.deaths] == ["mkdir", "write", "write", "rename", "end"]
    assert [death.torn for death in verdict.deaths] == [False, False, True, False, False]
    assert [death.step for death in verdict.deaths] == [1, 1, 1, 1, 2]
    assert [death.ending for death in verdict.deaths] == ["resumed-older"] * 4 + ["resumed-newest"]
    jsonschema.validate(json.loads(json.dumps(verdict.to_json())), SCHEMA)


@pytest.mark.slow
def test_a_loop_that_starts_over_silently_is_named(endings):
    verdict = endings("crashes.py:starts_over")
    assert (verdict.verdict, verdict.exit_status) == ("diverged", 1)
    assert by_event(verdict) == {
        ("mkdir", "checkpoint-2", False): "resumed-older",
        ("write", "state.pt", False): "started-over",
        ("write", "state.pt", True): "started-over",
        ("end", "", False): "resumed-newest",
    }


@pytest.mark.slow
def test_a_torn_file_that_is_taken_silently_ends_with_other_weights(endings):
    verdict = endings("crashes.py:takes_torn_weights")
    assert verdict.verdict == "diverged"
    found = by_event(verdict)
    assert found["write", "weights.jsonl", True] == "other-weights"
    (torn,) = [death for death in verdict.deaths if death.ending == "other-weights"]
    assert torn.step is None
    assert torn.detail == "first different in weights: 0.weight (6 of 6)"
    # Nothing of the weights is there yet, while the rest is taken: neither the start nor a step.
    assert found["write", "weights.jsonl", False] == "started-over-otherwise"
    assert found["write", "rest.pt", True] == "resumed-older"


@pytest.mark.slow
def test_a_target_that_never_resumes_exactly_is_not_blamed_for_torn_files(endings):
    verdict = endings("loops.py:plain_streams")
    assert verdict.verdict == "diverged"
    assert [death.ending for death in verdict.deaths] == ["inexact-resume"] * 5
    assert [death.step for death in verdict.deaths] == [1, 1, 1, 1, 2]


@pytest.mark.slow
def test_an_old_checkpoint_that_is_removed_first_leaves_nothing_to_resume(endings):
    found = by_event(endings("crashes.py:removes_the_old_first"))
    assert found["remove", "state.pt", False] == "resumed-older"
    assert found["write", "state.pt.unfinished", True] == "nothing-to-resume"
    assert found["rename", "state.pt.unfinished", False] == "nothing-to-resume"


@pytest.mark.slow
def test_the_plain_trainer_of_transformers_cannot_be_resumed_from_a_torn_checkpoint(endings):
    verdict = endings("plain.py:build")
    assert verdict.verdict == "diverged"
    found = Counter(death.ending for death in verdict.deaths)
    assert found["raised"] >= 10
    assert found["raised"] + found["resumed-older"] + found["resumed-newest"] == verdict.ways == len(verdict.deaths)
    written = {Path(death.path).name for death in verdict.deaths if death.kind == "write"}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= written
    last = verdict.deaths[-1]
    assert (last.kind, last.ending, last.step) == ("end", "resumed-newest", 2)
    torn = next(death for death in verdict.deaths if death.torn and death.path.endswith("trainer_state.json"))
    assert torn.detail.startswith("JSONDecodeError")


@pytest.mark.slow
def test_the_embedding_trainer_comes_back_wherever_it_dies(workbench, tmp_path):
    tiny.write_encoder(tmp_path / "encoder")
    tiny.write_rows(tmp_path / "data" / "train.jsonl", tiny.rows(tiny.ROWS))
    target = partial(embedding.build, directory=str(tmp_path), save_total_limit=1)
    verdict = crash(target, limit=8, bench=workbench.bench)
    assert verdict.verdict == "equivalent", verdict
    assert {death.ending for death in verdict.deaths} == {"resumed-newest", "resumed-older"}
    assert len(verdict.deaths) == 8 < verdict.ways
    assert verdict.notes[0].startswith(f"8 of {verdict.ways} ways to die were tried (--limit)")


@pytest.mark.slow
def test_what_cannot_be_killed_is_told(endings):
    with pytest.raises(UsageError, match="the save after step 9 cannot be killed in a run of 4 steps"):
        endings("crashes.py:whole_or_not", at=9, steps=4)
    with pytest.raises(UsageError, match="the step is at least 2"):
        endings("crashes.py:whole_or_not", at=1)


@pytest.mark.slow
def test_a_target_that_fails_or_does_not_repeat_itself_is_not_killed(endings):
    failed = endings("plain.py:build_broken")
    assert (failed.verdict, failed.exit_status, failed.deaths) == ("error", 4, ())
    assert "no data here" in failed.error
    chance = endings("crashes.py:starts_by_chance")
    assert (chance.verdict, chance.exit_status, chance.deaths) == ("nondeterministic", 3, ())
    assert [found.component for found in chance.findings] == ["nondeterminism"]
    for verdict in (failed, chance):
        jsonschema.validate(json.loads(json.dumps(verdict.to_json())), SCHEMA)


def test_a_save_without_an_event_is_told(tmp_path):
    with pytest.raises(UsageError, match="nothing is written in the output directory after step 4"):
        seen_events(tmp_path / "nothing.json", 4)
    (tmp_path / "events.json").write_text('[["create", "a", false]]')
    assert seen_events(tmp_path / "events.json", 4) == [FileEvent("create", "a", False)]


def test_a_death_of_another_event_is_no_death_of_this_one(tmp_path):
    (tmp_path / "event.json").write_text('["write", "a", true]')
    assert died_at(tmp_path / "event.json", FileEvent("write", "a", True))
    assert not died_at(tmp_path / "event.json", FileEvent("rename", "a", False))
    (tmp_path / "event.json").write_text('[["write", "a", true]]')  # the list of a run that has not died
    assert not died_at(tmp_path / "event.json", FileEvent("write", "a", True))
    assert not died_at(tmp_path / "nothing.json", FileEvent("write", "a", True))


def test_the_ways_to_die_are_before_each_event_in_each_that_tears_and_after_the_last():
    events = [FileEvent("create", "a", False), FileEvent("write", "a", True)]
    assert [(number, event.kind, torn) for number, event, torn in ways_to_die(events)] == [
        (1, "create", False),
        (2, "write", False),
        (2, "write", True),
        (3, "end", False),
    ]


@pytest.mark.parametrize(("limit", "numbers"), [(None, [1, 2, 2, 3]), (9, [1, 2, 2, 3]), (2, [1, 3]), (1, [1])])
def test_a_limit_spreads_over_the_save(limit, numbers):
    ways = ways_to_die([FileEvent("create", "a", False), FileEvent("write", "a", True)])
    assert [number for number, _, _ in spread(ways, limit)] == numbers


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_death_decides_the_verdict(ending):
    good = Death(1, "create", "a", False, "resumed-older", 1)
    verdict = outcome_of((good, Death(2, "write", "a", True, ending)))
    bad = "nondeterministic" if ending == "not-repeated" else "diverged"
    assert verdict == ("equivalent" if ENDINGS[ending].good else bad)
    assert bool(ENDINGS[ending].advice) != ENDINGS[ending].good


def test_the_schema_requires_exactly_the_fields_of_the_verdict():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for kind, definition in (
        (CrashVerdict, SCHEMA),
        (Death, SCHEMA["$defs"]["death"]),
        (Finding, SCHEMA["$defs"]["finding"]),
    ):
        fields = {field.name for field in dataclasses.fields(kind)} | ({"schema"} if kind is CrashVerdict else set())
        assert set(definition["properties"]) == set(definition["required"]) == fields
    assert SCHEMA["$defs"]["death"]["properties"]["ending"]["enum"] == list(ENDINGS)


def test_the_page_has_every_outcome():
    page = (Path(__file__).parents[2] / "docs" / "crash.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for ending in ENDINGS.values():
        assert f"| `{ending.name}` | {'yes' if ending.good else 'no'} | {ending.meaning} |" in rows
