"""Which reports can be reproduced: all others are one clear message and an exit status, before anything is trained."""

import dataclasses
import json

import pytest

from resumecheck.cli import main
from resumecheck.repro.failure import Failure, Recipe, failure_of, recipe_of
from resumecheck.verdict import Divergence, Finding, ResumePoint, Settings, Verdict

FINDING = Finding("RC204", "data-content", "confirmed", "other content", "Key it.")
POINT = ResumePoint(
    4, "end", "diverged", Divergence(5, "batch-content", "data-content", "batch", "", "a", "b"), (FINDING,)
)
DIVERGED = Verdict("train.py:build", "diverged", "bitwise", 12, 40, True, (POINT,))


@pytest.fixture
def repro(tmp_path, monkeypatch, capsys):
    """Runs the command on a report; returns exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("def build(output_dir):\n    raise ValueError\n", encoding="utf-8")

    def run(report, *options):
        file = tmp_path / "report.json"
        if isinstance(report, Verdict):
            file.write_text(json.dumps(report.to_json()), encoding="utf-8")
        elif isinstance(report, str):
            file.write_text(report, encoding="utf-8")
        else:
            file = report
        try:
            status = main(["repro", str(file), *options])
        except SystemExit as stop:
            status = stop.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def assert_one_message(outcome, message):
    status, out, err = outcome
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) <= 3
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not JSON"),
        ("[]", "it has no verdict"),
        ('{"verdict": "diverged"}', "it has no verdict"),
        (json.dumps({**DIVERGED.to_json(), "schema": 9}), "schema version 9 is not known here"),
        (json.dumps({**DIVERGED.to_json(), "resume_points": [4]}), "is not a report that can be read here"),
        (json.dumps({**DIVERGED.to_json(), "resume_points": [{}]}), "is not a report that can be read here"),
    ],
    ids=["torn", "a list", "no points", "of another schema", "a number for a point", "an empty point"],
)
def test_what_is_no_report_is_refused(repro, text, message):
    assert_one_message(repro(text), message)


def test_a_file_that_is_not_there_or_not_text_is_refused(repro, tmp_path):
    assert_one_message(repro(tmp_path / "missing.json"), "missing.json does not exist; make one with")
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    assert_one_message(repro(tmp_path / "binary.json"), "it is not JSON")


def test_a_directory_without_a_verdict_is_refused(repro, tmp_path):
    (tmp_path / "kept").mkdir()
    assert_one_message(repro(tmp_path / "kept"), "has no verdict.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verdict": "error", "resume_points": (), "error": "ValueError"}, "itself fails, uninterrupted"),
        ({"target": "test_it.<locals>.build"}, "has no name by which another process could import it"),
        ({"target": "gone.py:build"}, "gone.py:build, is not there, seen from"),
        ({"target": "python t.py --out {out}", "settings": Settings(command=("python",))}, "is about a command"),
        ({"target": "python t.py --out {out}"}, "is about a command"),
        ({"resume_points": (dataclasses.replace(POINT, findings=()),)}, "names no finding"),
    ],
    ids=["error", "closure", "gone", "command", "command of an older report", "no finding"],
)
def test_what_cannot_be_put_into_a_script_is_refused(repro, changes, message):
    assert_one_message(repro(dataclasses.replace(DIVERGED, **changes)), message)


def test_a_directory_of_keep_is_read(repro, tmp_path):
    (tmp_path / "kept").mkdir()
    equivalent = dataclasses.replace(DIVERGED, verdict="equivalent", resume_points=())
    (tmp_path / "kept" / "verdict.json").write_text(json.dumps(equivalent.to_json()), encoding="utf-8")
    assert repro(tmp_path / "kept")[:2] == (
        1,
        "nothing to reproduce: the report says that train.py:build is equivalent\n",
    )


def test_an_equivalent_report_has_nothing_to_reproduce(repro, tmp_path):
    status, out, err = repro(dataclasses.replace(DIVERGED, verdict="equivalent", resume_points=()))
    assert (status, err) == (1, "")
    assert out == "nothing to reproduce: the report says that train.py:build is equivalent\n"
    assert not (tmp_path / "resumecheck-repro").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-checks", "many"], "--max-checks many: expected a whole number"),
        (["--max-checks", "1"], "--max-checks 1: expected a whole number from 2 on"),
        (["--out", "train.py"], "train.py is there already and is not an empty directory"),
        (["--out", "."], "is not an empty directory"),
        (["--out", "train.py/x"], "cannot be made"),
        (["--target", "missing.py:build"], "the file missing.py does not exist"),
        (["--target", "train.py"], "has no name by which"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_refused_before_anything_starts(repro, options, message):
    assert_one_message(repro(DIVERGED, *options), message)


def test_a_report_without_settings_is_read():
    data = {name: value for name, value in DIVERGED.to_json().items() if name != "settings"}
    assert Verdict.from_json(data) == DIVERGED


def test_the_check_of_a_report_is_that_of_its_first_failed_point():
    passed = ResumePoint(2, "end", "equivalent")
    verdict = dataclasses.replace(
        DIVERGED,
        resume_points=(passed, POINT),
        tolerance="ulp:2",
        settings=Settings("next", "sigkill", {"seed": "1"}, True),
    )
    assert recipe_of(verdict) == Recipe(12, 4, "ulp:2", "sigkill", (("seed", "1"),), True)
    assert failure_of(verdict) == Failure("diverged", "RC204", "data-content")


def test_help_says_what_is_written_and_every_exit_status(repro):
    status, out, _err = repro("{", "--help")
    assert status == 0
    for word in (
        "--target",
        "--out",
        "--max-checks",
        "repro.py and issue.md",
        "0 the script is written",
        "4 the target",
    ):
        assert word in " ".join(out.split())
