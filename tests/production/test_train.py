"""`resumecheck train --record`: killed and resumed in fresh processes, and audited."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resumecheck.cli import main
from resumecheck.production.record import read_record
from tests.embedding import forks, ranks, tiny
from tests.production.runs import audit, only

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def encoder_and_rows(tmp_path_factory):
    directory = tmp_path_factory.mktemp("train")
    rows = tiny.write_rows(directory / "data" / "train.jsonl", tiny.rows(tiny.ROWS))
    return tiny.write_encoder(directory / "encoder"), rows


@pytest.fixture
def options(encoder_and_rows, tmp_path):
    def options(**changes):
        saving = {"save_strategy": "steps", "save_steps": 3, "record": tmp_path / "record"}
        return ["train", *tiny.train_options(*encoder_and_rows, tmp_path / "out", **{**saving, **changes})]

    return options


def python(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_a_run_that_was_killed_and_resumed_in_fresh_processes_is_exact(options, tmp_path):
    python("-m", "tests.examples.killed", "6", "resumecheck", *options())
    python("-m", "resumecheck", *options(resume_from_checkpoint=tmp_path / "out" / "checkpoint-3", verify_resume=True))
    found = audit(tmp_path / "record")
    resume = only(found)
    assert (resume.verdict, resume.step, resume.executed_twice) == ("exact", 3, 2)
    assert [segment.ended for segment in found.segments] == ["interrupted", "finished"]
    assert resume.notes == ()


@pytest.mark.slow
def test_of_two_processes_the_first_records_and_an_exact_resume_is_exact(options, tmp_path):
    common = {"ddp_backend": "gloo", "max_steps": 5}
    assert ranks.run(lambda rank: main(options(**common)), tmp_path / "rendezvous") == [0, 0]
    resume = {"resume_from_checkpoint": tmp_path / "out" / "checkpoint-3"}
    assert ranks.run(lambda rank: main(options(**common, **resume)), tmp_path / "rendezvous") == [0, 0]
    found = audit(tmp_path / "record")
    assert (only(found).verdict, only(found).executed_twice) == ("exact", 2)
    assert found.notes == ("of 2 processes the first is recorded: data and random streams of the others are not",)


def test_state_that_is_allowed_to_be_missing_is_named(options, tmp_path):
    assert forks.run(lambda: main(options(max_steps=5))) == 0
    (tmp_path / "out" / "checkpoint-3" / "optimizer.pt").unlink()
    resume = {"resume_from_checkpoint": tmp_path / "out" / "checkpoint-3", "allow_missing_state": "optimizer"}
    assert forks.run(lambda: main(options(max_steps=5, **resume))) == 0
    resume = only(audit(tmp_path / "record"))
    assert resume.verdict == "diverged"
    found = [finding.component for finding in resume.findings]
    assert (found[0], found[-1]) == ("optimizer-moments", "checkpoint-files")


def test_the_record_is_no_argument_of_the_run(options, tmp_path):
    assert forks.run(lambda: main(options(max_steps=4, record=None))) == 0
    again = {"resume_from_checkpoint": tmp_path / "out" / "checkpoint-3", "verify_resume": True}
    assert forks.run(lambda: main(options(max_steps=4, **again))) == 0
    (segment,) = read_record(tmp_path / "record")
    assert segment.run.first_step == 3


def test_a_record_that_cannot_be_written_is_wrong_usage(options, tmp_path, capfd):
    (tmp_path / "file").write_text("text")
    assert forks.run(lambda: main(options(record=tmp_path / "file" / "record"))) == 2
    assert "resumecheck train: Recorder(" in capfd.readouterr().err
