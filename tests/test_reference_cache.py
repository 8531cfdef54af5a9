"""A kept reference run is used where it is right, where that is said, and nowhere else."""

import contextlib
import hashlib
import json
import shutil

import pytest

from resumecheck.check import Workbench
from resumecheck.errors import UsageError
from resumecheck.reference_cache import ReferenceCache

TRAIN = """
import json
from pathlib import Path

from rates import SEED
from resumecheck.strategies import Setup

def build(output_dir, **fields):
    rows = json.loads(Path(__file__).with_name("rows.json").read_text())
    return Setup(rows=rows, steps=4, seed=SEED, **fields)(output_dir)

def build_defective(output_dir):
    return build(output_dir, mutation="moments_zeroed")

def build_writing(output_dir):
    Path(__file__).with_name("notes.txt").write_text("made")
    return build(output_dir)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "rates.py").write_text("SEED = 1\n")
    (tmp_path / "rows.json").write_text("8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def check(workbench, project):
    """A check in a session of its own, which knows nothing of earlier ones but what is kept."""

    def check(factory="build", at=2, steps=4, times=1):
        with contextlib.ExitStack() as stack:
            session = Workbench()
            session.cache = ReferenceCache(project / "kept")
            session.bench.pool.close()
            session.bench.pool = workbench.bench.pool
            stack.callback(shutil.rmtree, session.bench.root)
            stack.callback(session.bench.threads.shutdown)
            return [session.verify(f"train.py:{factory}", steps=steps, at=[at]) for _ in range(times)][-1]

    return check


def of_cache(verdict):
    return [note for note in verdict.notes if "reference run" in note]


def entries(project):
    return sorted((project / "kept").glob("[!.]*/*/entry.json"))


@pytest.mark.slow
def test_a_reference_run_is_kept_and_used_where_nothing_has_changed(check, project, monkeypatch):
    first, second = check(), check()
    assert [verdict.verdict for verdict in (first, second)] == ["equivalent", "equivalent"]
    assert of_cache(first) == []
    (note,) = of_cache(second)
    assert "training repeats itself was seen across sessions, not in this one" in note
    assert first.steps_executed - second.steps_executed == 4
    assert len(entries(project)) == 1

    # Each of these is another run, or could be one.
    (project / "rates.py").write_text("SEED = 2\n")
    assert of_cache(check()) == []
    (project / "rates.py").write_text("SEED = 1\n")
    (project / "rows.json").write_text("12")
    assert of_cache(check()) == []
    (project / "rows.json").write_text("8")
    monkeypatch.setenv("TORCH_SOMETHING", "1")
    assert of_cache(check()) == []
    monkeypatch.delenv("TORCH_SOMETHING")
    assert of_cache(check(at=1)) == []
    assert len(entries(project)) == 5
    assert of_cache(check()) == [note]


@pytest.mark.slow
def test_a_divergence_is_found_as_without_it(check):
    first, second = check("build_defective"), check("build_defective")
    assert len(of_cache(second)) == 1
    assert second.resume_points == first.resume_points
    assert second.verdict == "diverged"


@pytest.mark.slow
def test_an_entry_that_is_damaged_or_another_run_is_not_used(check, project):
    check()
    (entry,) = entries(project)
    steps = entry.with_name("steps.jsonl")
    whole = steps.read_bytes()
    steps.write_bytes(whole[:-40])
    verdict = check()
    (note,) = of_cache(verdict)
    assert "is damaged and was not used: steps.jsonl is not the file that was written" in note
    assert verdict.equivalent
    # It has been replaced.
    assert steps.read_bytes() != whole[:-40]

    content = json.loads(entry.read_text())
    rows = [json.loads(line) for line in steps.read_text().splitlines()]
    rows[2]["micro"][0]["loss"] += 1
    steps.write_text("".join(json.dumps(row) + "\n" for row in rows))
    content["files"]["steps.jsonl"] = hashlib.sha256(steps.read_bytes()).hexdigest()
    entry.write_text(json.dumps(content))
    verdict = check()
    assert "is another run and was not used" in of_cache(verdict)[0]
    assert verdict.equivalent

    for text in ("", "[]", '{"format": 1, "files": {"../../x": ""}}'):
        entry.write_text(text)
        assert "is damaged and was not used" in of_cache(check())[0]


@pytest.mark.slow
def test_what_this_session_has_made_is_not_said_to_be_of_another(check, project):
    verdict = check(times=2)
    assert of_cache(verdict) == []
    assert len(entries(project)) == 1


@pytest.mark.slow
def test_what_is_not_sure_is_not_kept(check, project):
    (note,) = of_cache(check("build_writing"))
    assert note.startswith("the reference run was not kept for other sessions: the target writes ")
    assert note.endswith("notes.txt")
    assert entries(project) == []


def test_a_cache_that_cannot_be_made_is_wrong_usage(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(UsageError, match=r"the cache .*taken cannot be made .*; give a directory"):
        ReferenceCache(tmp_path / "taken")
