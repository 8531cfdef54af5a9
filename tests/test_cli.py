"""The command line: exit statuses, one clear message for wrong usage, the JSON file."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

import resumecheck
from resumecheck.cli import main
from resumecheck.diagnose.findings import KINDS
from resumecheck.zoo.catalogue import by_name

EXAMPLE = Path(__file__).parent / "examples" / "masked_words.py"
SCHEMA = json.loads((files("resumecheck") / "schema" / "verdict-1.json").read_text(encoding="utf-8"))

OTHER_TARGETS = """
import os

def returns_nothing(output_dir):
    pass

def fails(output_dir):
    raise ValueError("there is no data")

def build_unseeded(output_dir):
    import torch
    from masked_words import build_keyed

    trainer = build_keyed(output_dir)
    stream = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big"))
    torch.nn.init.normal_(trainer.model.classifier.weight, generator=stream)
    return trainer

number = 42
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "other.py").write_text(OTHER_TARGETS, encoding="utf-8")
    (tmp_path / "notes.txt").write_text("build is described here", encoding="utf-8")
    (tmp_path / "prose.py").write_text("this is not Python at all", encoding="utf-8")
    (tmp_path / "binary.py").write_bytes(bytes(range(256)))
    (tmp_path / "out" / "checkpoint-4").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def resumecheck_command(project, capsys):
    """Runs the command line; returns exit status, standard output, standard error."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def assert_one_message(outcome, message):
    status, out, err = outcome
    assert status == 2
    assert message in err
    assert err.startswith("resumecheck")
    assert len(err.strip().splitlines()) <= 3
    assert "Traceback" not in err
    assert out == ""


class TestHelp:
    def test_help_names_every_command_and_exit_status(self, resumecheck_command):
        status, out, _err = resumecheck_command("--help")
        assert status == 0
        for word in (
            "verify",
            "zoo",
            "explain",
            "repro",
            "train",
            "evaluate",
            "mine",
            "score",
            "split",
            "export",
            "0 equivalent",
            "1 diverged",
            "2 wrong",
            "4 the target failed",
        ):
            assert word in " ".join(out.split())

    def test_help_of_verify_explains_each_option_and_shows_an_example(self, resumecheck_command):
        status, out, _err = resumecheck_command("verify", "--help")
        assert status == 0
        for word in (
            "TARGET",
            "--steps",
            "--at",
            "--horizon",
            "--tolerance",
            "--interrupt",
            "--on-resume",
            "--json",
            "--html",
        ):
            assert word in out
        assert "resumecheck verify train.py:build --steps 12 --at 4,9" in out

    def test_help_of_zoo_says_what_it_proves(self, resumecheck_command):
        status, out, _err = resumecheck_command("zoo", "--help")
        assert status == 0
        for word in ("NAME", "--json", "clean twin", "0 where every mutant is detected and no twin blamed"):
            assert word in " ".join(out.split())

    def test_the_version_is_the_packages(self, resumecheck_command):
        assert resumecheck_command("--version")[:2] == (0, f"resumecheck {resumecheck.__version__}\n")

    def test_the_module_is_the_command(self):
        done = subprocess.run([sys.executable, "-m", "resumecheck", "--version"], capture_output=True, check=True)
        assert done.stdout.decode() == f"resumecheck {resumecheck.__version__}\n"


class TestWrongUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "the following arguments are required: COMMAND"),
            (["verify"], "the following arguments are required: TARGET"),
            (["check", "masked_words.py:build"], "invalid choice: 'check'"),
            (["verify", "masked_words.py:build", "--step", "4"], "unrecognized arguments: --step 4"),
            (["verify", "masked_words.py:build", "--steps", "many"], "steps: 'many' is not a number"),
            (["verify", "masked_words.py:build", "--at", "3,x"], "at: '3,x' is not a list of steps"),
            (["verify", "masked_words.py:build", "--at", ","], "at: ',' names no resume point"),
            (["verify", "masked_words.py:build", "--horizon", "far"], "horizon: 'far' is not known"),
            (["verify", "masked_words.py:build", "--tolerance", "nearly"], "tolerance 'nearly': expected bitwise"),
            (["verify", "masked_words.py:build", "--interrupt", "politely"], "interrupt: 'politely' is not known"),
            (["verify", "masked_words.py:build", "--on-resume", "workers"], "--on-resume workers: expected KEY=VALUE"),
            (["verify", "masked_words.py:build", "--keep", "out"], "is not an empty directory"),
            (
                ["verify", "masked_words.py:build", "--steps", "4", "--at", "9"],
                "resume point 9 is not inside the run of 4",
            ),
            (
                ["verify", "masked_words.py:build", "--steps", "4", "--at", "4"],
                "resume point 4 is not inside the run of 4",
            ),
            (
                ["verify", "masked_words.py:build", "--steps", "4", "--at", "0"],
                "resume point 0 is not inside the run of 4",
            ),
            (["verify", "masked_words"], "expected 'pkg.mod:build' or 'path/file.py:build'"),
            (["verify", "missing.py:build"], "the file missing.py does not exist"),
            (["verify", "notes.txt:build"], "notes.txt is not a Python file"),
            (["verify", "out/checkpoint-4:build"], "out/checkpoint-4 is a directory"),
            (["verify", "masked_words.py:2"], "'2' is not the name of a factory"),
            (["zoo", "scheduler_not_restord"], "no specimen and no component of the zoo is called"),
            (
                ["explain", "RC999"],
                "no finding has the code or the component 'RC999'; known: RC101 weights, RC102 buffers",
            ),
            (
                ["verify", "masked_words.py:build", "--html", "missing/r.html"],
                "--html missing/r.html: cannot be written",
            ),
            (["explain", "RC204", "RC301"], "unrecognized arguments: RC301"),
            (["zoo", "--json", "missing/zoo.json"], "--json missing/zoo.json: cannot be written"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_it_is_refused_before_anything_starts(self, resumecheck_command, arguments, message):
        assert_one_message(resumecheck_command(*arguments), message)

    @pytest.mark.parametrize("path", ["missing/verdict.json", "notes.txt/verdict.json", "out"])
    def test_a_json_file_that_cannot_be_written_is_refused_before_training(self, resumecheck_command, path):
        outcome = resumecheck_command("verify", "masked_words.py:build", "--json", path)
        assert_one_message(outcome, f"--json {path}: cannot be written")
        assert "reference" not in outcome[2]

    def test_html_without_jinja2_is_refused_before_training(self, resumecheck_command, monkeypatch):
        monkeypatch.setitem(sys.modules, "jinja2", None)
        outcome = resumecheck_command("verify", "masked_words.py:build", "--html", "report.html")
        assert_one_message(outcome, "--html needs the package 'jinja2', which is not installed: pip install")
        assert "reference" not in outcome[2]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["masked_words.py:nothing"], "masked_words has no 'nothing'; functions there: build, build_keyed"),
            (["other.py:number"], "number is not a function but of type int"),
            (["other.py:returns_nothing"], "returned None, expected a transformers.Trainer"),
            (["no_such_package.training:build"], "there is no module 'no_such_package'"),
            (["prose.py:build"], "prose.py is not valid Python: line 1"),
            (["binary.py:build"], "binary.py is not"),
            (["masked_words.py:build", "--at", "14"], "resume point 14 is not inside the run of 14 steps"),
            (["masked_words.py:build", "--on-resume", "no_such_argument=1"], "no_such_argument"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_what_only_a_worker_can_see_is_refused_too(self, resumecheck_command, arguments, message):
        status, out, err = resumecheck_command("verify", *arguments)
        messages = [line for line in err.splitlines() if not re.match(r"resumecheck: .*: step \d+", line)]
        assert_one_message((status, out, "\n".join(messages)), message)


class TestExplain:
    @pytest.mark.parametrize("name", ["RC204", "rc204", "data-content"])
    def test_a_finding_is_explained_by_code_or_component(self, resumecheck_command, name):
        status, out, err = resumecheck_command("explain", name)
        assert (status, err) == (0, "")
        assert out.startswith("RC204  data-content: the same samples arrive with other content\n")
        for part in ("How it comes about", "transformers #46628", "What to do", "Lost", "Mended", "def __getitem__"):
            assert part in out
        assert "See it found: resumecheck zoo data-content" in out

    def test_without_a_name_every_finding_is_listed(self, resumecheck_command):
        status, out, _err = resumecheck_command("explain")
        assert status == 0
        for kind in KINDS:
            assert f"  {kind.code}  {kind.component} " in out

    def test_a_reader_that_closes_the_pipe_is_no_defect(self):
        command = [sys.executable, "-m", "resumecheck", "explain", "RC204"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            process.stdout.close()
            assert process.stderr.read() == ""
        assert process.returncode == 0

    def test_it_answers_at_once(self):
        code = (
            "import sys; from resumecheck.cli import main; main(['explain', 'RC204']); main(['explain']);"
            "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy', 'rich')))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


class TestTrainerCommands:
    @pytest.mark.parametrize("command", ["train", "evaluate"])
    def test_the_options_are_those_of_the_trainer(self, resumecheck_command, command):
        status, out, _err = resumecheck_command(command, "--help")
        assert status == 0
        assert f"usage: resumecheck {command}" in out
        assert "--model_name_or_path" in out

    def test_an_option_that_the_trainer_does_not_know_is_wrong_usage(self, resumecheck_command):
        status, _out, err = resumecheck_command("train", "--no_such_option", "1")
        assert status == 2
        assert "--no_such_option" in err
        assert "Traceback" not in err

    def test_a_package_that_is_not_installed_is_named(self, resumecheck_command, monkeypatch):
        monkeypatch.setitem(sys.modules, "ir_measures", None)
        monkeypatch.delitem(sys.modules, "resumecheck.embedding.evaluate", raising=False)
        outcome = resumecheck_command("evaluate", "--help")
        assert_one_message(outcome, "evaluate needs the package 'ir_measures', which is not installed: pip install")


class TestVerdicts:
    def test_a_diverged_run_exits_with_1_and_its_json_and_html_are_written(
        self, resumecheck_command, project, monkeypatch
    ):
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("GITHUB_WORKSPACE", str(project))
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
        options = ["--steps", 4, "--at", 2, "--json", "verdict.json", "--html", "report.html"]
        status, out, err = resumecheck_command("verify", "masked_words.py:build", *options)
        assert status == 1
        assert out.startswith("DIVERGED  masked_words.py:build")
        assert "resumed from step 2: the first difference is at step 3, in data-content" in out
        assert "reproduce   resumecheck verify masked_words.py:build --steps 4 --at 2" in out
        assert "resumecheck: reference: step 4 of 4" in err
        data = json.loads((project / "verdict.json").read_text(encoding="utf-8"))
        jsonschema.validate(data, SCHEMA)
        assert data["verdict"] == "diverged"
        assert data["resume_points"][0]["first_divergence"]["component"] == "data-content"
        report = (project / "report.html").read_text(encoding="utf-8")
        assert "Resumed from step 2: the first difference is at step 3, in data-content" in report
        assert report.count("<svg viewBox") > 4
        assert re.search(r"^::error file=masked_words\.py,line=\d+,title=resumecheck%3A diverged at step 3", out, re.M)
        assert "RC204" in (project / "summary.md").read_text(encoding="utf-8")

    @pytest.mark.slow
    def test_an_equivalent_run_exits_with_0_and_its_runs_are_kept(self, resumecheck_command, project):
        status, out, _err = resumecheck_command(
            "verify",
            "masked_words:build_keyed",
            "--steps",
            4,
            "--at",
            "every",
            "--keep",
            "kept",
            "--json",
            "verdict.json",
        )
        assert status == 0
        assert out.startswith("EQUIVALENT  masked_words:build_keyed")
        assert "::" not in out
        assert any((project / "kept").rglob("steps.jsonl"))
        assert (project / "kept" / "verdict.json").read_text() == (project / "verdict.json").read_text()
        data = json.loads((project / "verdict.json").read_text(encoding="utf-8"))
        jsonschema.validate(data, SCHEMA)
        assert [point["step"] for point in data["resume_points"]] == [1, 2, 3]

    @pytest.mark.slow
    def test_a_run_that_does_not_repeat_itself_exits_with_3(self, resumecheck_command, project):
        status, out, _err = resumecheck_command(
            "verify", "other.py:build_unseeded", "--steps", 4, "--at", 2, "--json", "verdict.json"
        )
        assert status == 3
        assert out.startswith("NONDETERMINISTIC")
        data = json.loads((project / "verdict.json").read_text(encoding="utf-8"))
        jsonschema.validate(data, SCHEMA)
        assert data["reference_repeats"] is False

    @pytest.mark.slow
    def test_a_target_that_fails_exits_with_4_and_its_exception(self, resumecheck_command, project):
        status, out, err = resumecheck_command("verify", "other.py:fails", "--json", "verdict.json")
        assert status == 4
        assert "ValueError: there is no data" in out
        assert "Traceback" not in err
        data = json.loads((project / "verdict.json").read_text(encoding="utf-8"))
        jsonschema.validate(data, SCHEMA)
        assert "there is no data" in data["error"]


class TestZoo:
    def test_a_specimen_that_is_well_judged_exits_with_0(self, resumecheck_command, project):
        status, out, err = resumecheck_command("zoo", "scheduler_not_restored", "--json", "zoo.json")
        assert status == 0
        assert "scheduler_not_restored  lr-scheduler" in out
        assert "1 of 1 (100%) detected" in out
        assert "0 of 1 clean twins blamed" in out
        assert "resumecheck: 1 of 1: scheduler_not_restored: detected, lr-scheduler (confirmed)" in err
        (result,) = json.loads((project / "zoo.json").read_text(encoding="utf-8"))["results"]
        assert (result["detected"], result["confirmed"], result["verdict_of_twin"]) == (True, True, "equivalent")

    @pytest.mark.slow
    def test_a_mutant_that_is_missed_and_a_twin_that_is_blamed_exit_with_1(
        self, resumecheck_command, project, monkeypatch
    ):
        specimen = by_name("scheduler_not_restored")
        exchanged = dataclasses.replace(specimen, mutant=specimen.twin, twin=specimen.mutant)
        monkeypatch.setattr("resumecheck.zoo.run.SPECIMENS", (exchanged,))
        status, out, _err = resumecheck_command("zoo", "--json", "zoo.json")
        assert status == 1
        assert "0 of 1 (0%) detected" in out
        assert "1 of 1 clean twins blamed" in out
        assert f"resumecheck verify {specimen.twin} --steps 12 --at 4,9" in out
        assert json.loads((project / "zoo.json").read_text(encoding="utf-8"))["numbers"]["twins_blamed"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("keep", [False, True])
def test_an_interrupted_check_ends_with_a_message_and_leaves_nothing(project, tmp_path, number, status, keep):
    command = [sys.executable, "-m", "resumecheck", "verify", "masked_words.py:build_keyed", "--at", "every"]
    kept = tmp_path / "kept"
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [*command, "--keep", str(kept)] if keep else command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
    )
    assert process.stderr.readline().startswith("resumecheck: ")
    process.send_signal(number)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert err.splitlines()[-1] == "resumecheck: interrupted; every run that was started has been ended"
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert not list((tmp_path / "tmp").glob("resumecheck-*"))
    if keep:
        assert err.splitlines()[-2] == f"resumecheck: what was recorded until now is in {kept}"
        assert list(kept.glob("*-reference/spec.pkl"))
