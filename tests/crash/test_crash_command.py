"""`resumecheck crash` from the shell: commands right and wrong, and wrong usage."""

import json
import sys
from pathlib import Path

import pytest

from resumecheck.cli import main
from resumecheck.runs.command import read_command

SCRIPT = Path(__file__).parents[1] / "targets" / "scripts" / "saves_last.py"
WHOLE = """\
    unfinished = options.out / "last.json.unfinished"
    unfinished.write_text(json.dumps({"step": step, "model": weights}))
    os.replace(unfinished, last)
"""
IN_PLACE = """\
    last.write_text(json.dumps({"step": step, "model": weights}))
"""


def crash(script, tmp_path, *options):
    """Exit status and JSON of a check whose save after step 2 is killed in three ways."""
    command = ["crash", "--at", "2", "--limit", "3", "--json", str(tmp_path / "crash.json"), *options]
    status = main([*command, "--", sys.executable, str(script), "--out", "{out}"])
    return status, json.loads((tmp_path / "crash.json").read_text())


@pytest.mark.slow
def test_a_script_that_replaces_its_checkpoint_as_a_whole_is_equivalent(tmp_path, capsys):
    status, verdict = crash(SCRIPT, tmp_path)
    assert (status, verdict["verdict"], verdict["events"], verdict["ways"]) == (0, "equivalent", 3, 5)
    found = [(death["kind"], death["torn"], death["ending"], death["step"]) for death in verdict["deaths"]]
    assert found == [
        ("create", False, "resumed-older", 1),
        ("write", True, "resumed-older", 1),
        ("end", False, "resumed-newest", 2),
    ]
    told = capsys.readouterr()
    assert told.out.startswith("EQUIVALENT  ")
    assert "3 of 5 ways to die" in told.out
    assert "resumecheck: killed and resumed: way to die 3 of 3" in told.err


@pytest.mark.slow
def test_a_script_that_writes_over_its_only_checkpoint_is_named(tmp_path, capsys):
    text = SCRIPT.read_text()
    assert WHOLE in text
    (tmp_path / "script.py").write_text(text.replace(WHOLE, IN_PLACE))
    status, verdict = crash(tmp_path / "script.py", tmp_path)
    assert (status, verdict["verdict"]) == (1, "diverged")
    found = [(death["kind"], death["torn"], death["ending"]) for death in verdict["deaths"]]
    assert found == [("create", False, "resumed-older"), ("write", True, "raised"), ("end", False, "resumed-newest")]
    assert "JSONDecodeError" in verdict["deaths"][1]["detail"]
    told = capsys.readouterr().out
    assert "1 of 3  raised: the resume ended with an error" in told
    assert "torn             write last.json" in told
    assert "resumecheck explain RC106" in told


def test_the_newest_checkpoint_is_that_of_the_highest_step(tmp_path):
    command = read_command(["train", "{out}"], "--resume {checkpoint}", "states/state-{step}.pt")
    assert command.newest(tmp_path) is None
    (tmp_path / "states").mkdir()
    for name in ("state-9.pt", "state-10.pt", "state-10.pt.unfinished", "state-x.pt"):
        (tmp_path / "states" / name).touch()
    assert command.newest(tmp_path) == 10
    fixed = read_command(["train", "{out}"], "--resume {checkpoint}", "last.pt")
    assert fixed.newest(tmp_path) is None
    (tmp_path / "last.pt").touch()
    assert fixed.newest(tmp_path) == 0
    assert read_command(["train", "{out}"], None, None, by_itself=True).newest(tmp_path) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "TARGET, or -- and a command, not both"),
        (["train.py:build", "--", "python", "train.py", "{out}"], "TARGET, or -- and a command, not both"),
        (["--", "python", "train.py"], "the command has no {out}"),
        (["train.py:build", "--at", "two"], "--at two: expected a whole number from 1 on"),
        (["train.py:build", "--limit", "0"], "--limit 0: expected a whole number from 1 on"),
        (["train.py:build"], "the file train.py does not exist"),
        (
            ["a:b", "--resume-option", "--resume {checkpoint}"],
            "--resume-option is for a command that follows --, not for a target",
        ),
        (["--steps", "3", "--", "python", "train.py", "{out}"], "--steps: a command is run to its end"),
        (["train.py:build", "--json", "no/such/folder/crash.json"], "give a file in a directory that exists"),
        (["--", "no-such-command", "{out}"], "the command 'no-such-command' cannot be started"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_clear_message(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["crash", *words]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""
    assert "Traceback" not in told.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("raise ValueError('no data')", 4, "the reference run ended with exit status 1"),
        ("pass", 2, "no optimizer step of the command was seen"),
    ],
    ids=["fails", "trains not"],
)
def test_a_command_that_cannot_be_judged(body, status, message, tmp_path, capsys):
    (tmp_path / "script.py").write_text(f"{body}\n")
    assert main(["crash", "--", sys.executable, str(tmp_path / "script.py"), "{out}"]) == status
    told = capsys.readouterr()
    assert message in told.out + told.err
