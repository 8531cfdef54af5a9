"""The action's shell, run with the variables that GitHub sets. Steps that use another action are not run."""

import dataclasses
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.ci.composite import ROOT, evaluate

sys.path.insert(0, str(ROOT / "ci"))

import check
import inputs
import install

SHORT = {"steps": "4", "at": "2"}
NOT_RUN = {"verdict": "", "exit-status": "", "artifact-url": ""}


@pytest.mark.slow
def test_an_equivalent_target_passes_and_its_report_is_uploaded(act):
    job = act(target="train.py:build_keyed", **SHORT)
    assert job.status == 0, job.log
    assert (job.outputs["verdict"], job.outputs["exit-status"]) == ("equivalent", "0")
    assert job.commands("error") == job.commands("warning") == []
    assert "a resumed run is the same run" in job.summary
    report = Path(job.outputs["report"])
    assert job.used["actions/upload-artifact"]["path"] == str(report)
    assert sorted(file.name for file in report.iterdir()) == ["report.html", "verdict.json"]
    verdict = json.loads((report / "verdict.json").read_text())
    assert (verdict["steps"], [point["step"] for point in verdict["resume_points"]]) == (4, [2])


@pytest.mark.slow
def test_a_diverged_target_fails_with_an_annotation_a_summary_and_a_report(act):
    job = act(target="train.py:build", **SHORT)
    assert job.status == 1, job.log
    assert (job.outputs["verdict"], job.outputs["exit-status"]) == ("diverged", "1")
    (annotation,) = job.commands("error")
    assert annotation.startswith(
        "::error file=train.py,line=53,title=resumecheck%3A diverged at step 3 in data-content"
    )
    assert "RC204 data-content" in job.summary
    assert job.ran[-1] == "Upload the report"
    report = Path(job.used["actions/upload-artifact"]["path"])
    assert sorted(file.name for file in report.iterdir()) == ["report.html", "verdict.json"]


@pytest.mark.slow
def test_a_failing_test_fails_the_job_and_leaves_pages_and_junit(act, workspace):
    (workspace / "test_resume.py").write_text(
        "def build(output_dir):\n    raise ValueError('no data')\n\n\n"
        "def test_it(resumecheck):\n    resumecheck(build)\n\n\n"
        "def test_other():\n    pass\n"
    )
    job = act(command="pytest", args="-q -k 'test_it or other'", **SHORT)
    assert job.status == 1, job.log
    assert (job.outputs["verdict"], job.outputs["exit-status"]) == ("error", "1")
    (annotation,) = job.commands("error")
    assert annotation.startswith("::error file=test_resume.py,line=6,title=resumecheck%3A error")
    assert "ValueError" in job.summary
    written = {file.name for file in Path(job.outputs["report"]).iterdir()}
    assert {"index.html", "junit.xml"} <= written
    assert "1 failed, 1 passed" in job.log


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"target": ""}, "target: found nothing, expected pkg.module:build"),
        ({"command": "train"}, "command: 'train' is not known; give one of: verify, pytest"),
        ({"steps": "many"}, "inputs of the action: steps: 'many' is not a number of optimizer steps"),
        ({"horizon": "far"}, "inputs of the action: horizon: 'far' is not known; give one of: end, next"),
        ({"args": "--on-resume 'a=1"}, 'args: "--on-resume \'a=1" cannot be split into words'),
        ({"args": "--json=mine.json"}, "args: --json is given by the action"),
        ({"args": "--junitxml mine.xml", "command": "pytest"}, "args: --junitxml is given by the action"),
        ({"fail-on": "divergence"}, "fail-on: 'divergence' is not known; give some of: diverged, nondeterministic"),
        ({"fail-on": ""}, "fail-on: '' is not known"),
        ({"device": "gpu"}, "device: 'gpu' is not known; give one of: any, cuda"),
        ({"working-directory": ".."}, "working-directory: '..' is no directory of the repository"),
        ({"working-directory": "src"}, "working-directory: 'src' is no directory of the repository"),
        ({"requirements": "dev.txt"}, "requirements: there is no file 'dev.txt'"),
        ({"resumecheck-version": "newest"}, "resumecheck-version: 'newest' cannot be used; give a version such as"),
        ({"torch-version": ">=2"}, "torch-version: '>=2' cannot be used; give a version such as 2.13.0"),
        ({"torch-index-url": "cu128"}, "torch-index-url: 'cu128' cannot be used; give an address that begins with"),
        ({"extras": "report;x"}, "extras: 'report;x' is no name of an extra"),
        ({"report-name": "a/b"}, "report-name: 'a/b' cannot be used; give letters, digits"),
        ({"cache": "yes"}, "cache: 'yes' is not known; give one of: true, false"),
    ],
    ids=lambda given: next(iter(given.items())) if isinstance(given, dict) else "",
)
def test_a_bad_input_is_one_annotation_and_status_2_and_nothing_is_installed(act, given, said):
    job = act(**{"target": "train.py:build", **given})
    assert job.status == 2, job.log
    (annotation,) = job.commands("error")
    assert annotation.startswith("::error title=resumecheck%3A the action cannot run::" + said)
    assert job.log.splitlines() == [annotation]
    assert job.ran == ["Check the inputs"]
    assert job.outputs == {**NOT_RUN, "report": ""}


def test_what_only_the_check_can_refuse_has_status_2_too(act):
    job = act(target="train.py:build", args="--no-such-option")
    assert job.status == 2, job.log
    assert (job.outputs["verdict"], job.outputs["exit-status"]) == ("", "2")
    assert job.commands("error") == [
        "::error title=resumecheck%3A no verdict::verify ended with exit status 2 and no verdict: the log says why"
    ]
    assert "unrecognized arguments: --no-such-option" in job.log
    assert list(Path(job.outputs["report"]).iterdir()) == []


def test_what_a_user_writes_is_never_run_by_the_shell(act, workspace):
    job = act(
        target="$(touch target)", args="`touch args` ; touch more", report_name="r", at="$(touch at)", horizon="x"
    )
    assert job.status == 2
    assert [file.name for file in workspace.iterdir()] == ["train.py"]


def test_a_second_use_with_the_same_report_name_is_refused(act, tmp_path):
    (tmp_path / "temp" / "resumecheck" / "mine").mkdir(parents=True)
    job = act(target="train.py:build", report_name="mine")
    assert job.status == 2
    assert "report-name: 'mine' was used by an earlier step of this job" in job.log


@pytest.mark.slow
def test_a_job_for_a_gpu_does_not_check_on_the_cpu(act):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    job = act(target="train.py:build", device="cuda")
    assert job.status == 2
    assert "device: found no GPU that torch can use, expected cuda" in job.log
    assert "step 0" not in job.log
    assert "Upload the report" not in job.ran


def read(workspace, **given):
    """The inputs as `action.yml` gives them, with its defaults."""
    import yaml

    described = yaml.safe_load((ROOT / "ci" / "action.yml").read_text())["inputs"]
    values = {name: said["default"] for name, said in described.items()}
    values |= {"target": "train.py:build"} | {name.replace("_", "-"): text for name, text in given.items()}
    variables = {f"INPUT_{name.upper().replace('-', '_')}": text for name, text in values.items()}
    return inputs.read_inputs(
        {**variables, "GITHUB_WORKSPACE": str(workspace), "RUNNER_TEMP": str(workspace.parent / "temp")}
    )


def test_a_command_of_the_users_own_comes_last(workspace):
    asked = read(workspace, target="", args="--resume-option '--resume {checkpoint}' -- python train.py --json {out}")
    words = check.command(asked)
    assert words[:2] == ["resumecheck", "verify"]
    assert words[-7:] == ["--resume-option", "--resume {checkpoint}", "--", "python", "train.py", "--json", "{out}"]
    assert {"--json", "--html"} <= set(words[: words.index("--")])


def test_pytest_is_given_the_options_of_the_check(workspace):
    words = check.command(read(workspace, command="pytest", at="3,7", tolerance="ulp:4", args="-x tests"))
    assert words[:2] == ["pytest", "--resumecheck"]
    assert {"--resumecheck-target=train.py:build", "--resumecheck-at=3,7", "--resumecheck-tolerance=ulp:4"} <= set(
        words
    )
    assert words[-2:] == ["-x", "tests"]


def verdict_file(asked, verdict):
    Path(asked.report).mkdir(parents=True, exist_ok=True)
    (Path(asked.report) / "verdict.json").write_text(json.dumps({"verdict": verdict}))


def test_a_verdict_that_fail_on_leaves_out_is_let_pass_and_no_other(workspace):
    asked, none = read(workspace, fail_on="diverged, error"), read(workspace, fail_on="none")
    verdict_file(asked, "nondeterministic")
    assert check.outcome_of_verify(asked, 3) == ("nondeterministic", 0)
    assert check.outcome_of_verify(asked, 70) == ("nondeterministic", 70)
    verdict_file(asked, "diverged")
    assert check.outcome_of_verify(asked, 1) == ("diverged", 1)
    (Path(asked.report) / "verdict.json").unlink()
    assert check.outcome_of_verify(asked, 2) == ("", 2)
    assert check.outcome_of_verify(none, 2) == ("", 2)


def junit(asked, *tests):
    """A JUnit file of tests, each a pair: the verdicts that it has recorded, and whether it failed."""
    cases = "".join(
        "<testcase><properties>"
        + "".join(f'<property name="resumecheck.verdict" value="{verdict}"/>' for verdict in verdicts)
        + f"</properties>{'<failure/>' if failed else ''}</testcase>"
        for verdicts, failed in tests
    )
    Path(asked.report).mkdir(parents=True, exist_ok=True)
    (Path(asked.report) / "junit.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")


def test_of_the_tests_that_failed_the_worst_verdict_counts(workspace):
    asked = read(workspace, command="pytest", fail_on="error")
    junit(asked, (["nondeterministic"], True), (["equivalent", "diverged"], True), (["error"], False))
    assert check.outcome_of_pytest(asked, 1) == ("diverged", 0)
    junit(asked, (["diverged"], True), (["error"], True))
    assert check.outcome_of_pytest(asked, 1) == ("error", 1)


def test_a_test_that_failed_without_a_verdict_is_never_let_pass(workspace):
    asked = read(workspace, command="pytest", fail_on="none")
    junit(asked, (["diverged"], True), ([], True))
    assert check.outcome_of_pytest(asked, 1) == ("diverged", 1)
    junit(asked, (["equivalent"], True))
    assert check.outcome_of_pytest(asked, 1) == ("equivalent", 1)
    junit(asked, (["diverged"], False))
    assert check.outcome_of_pytest(asked, 2) == ("", 2)


def test_tests_that_pass_are_equivalent_only_where_something_was_checked(workspace):
    asked = read(workspace, command="pytest")
    junit(asked, (["diverged"], False), ([], False))
    assert check.outcome_of_pytest(asked, 0) == ("equivalent", 0)
    junit(asked, ([], False))
    assert check.outcome_of_pytest(asked, 0) == ("", 0)


def test_torch_comes_from_its_own_index_and_nothing_else_does(workspace, tmp_path):
    (workspace / "dev.txt").write_text("")
    asked = read(
        workspace,
        torch_version="2.13.0",
        torch_index_url="https://index.example/cpu",
        requirements="dev.txt",
        install="-e .",
    )
    assert install.torch_command(asked) == ["install", "--index-url", "https://index.example/cpu", "torch==2.13.0"]
    rest = install.command(asked, tmp_path / "constraints.txt")
    assert rest[:3] == ["install", "-c", str(tmp_path / "constraints.txt")]
    assert rest[3] == f"resumecheck[report] @ {ROOT.as_uri()}"
    assert rest[4:] == ["-r", str(workspace / "dev.txt"), "-e", "."]


def test_a_release_is_pinned_and_what_is_installed_is_left_alone(workspace):
    asked = read(workspace, resumecheck_version="0.1.0", extras="report,embedding", torch_version="2.13.0")
    assert install.torch_command(asked) == []
    assert install.command(asked, None) == ["install", "resumecheck[report,embedding]==0.1.0", "torch==2.13.0"]
    assert install.command(read(workspace, resumecheck_version="installed"), None) == []


def test_the_cache_is_another_for_other_requirements(workspace):
    (workspace / "dev.txt").write_text("trl==1.16.0")
    asked = read(workspace, requirements="dev.txt")
    key, prefix = inputs.cache_key(asked)
    assert inputs.cache_key(asked) == (key, prefix)
    assert key.startswith(prefix)
    assert inputs.cache_key(dataclasses.replace(asked, torch_index_url="https://index.example/cu"))[0] != key
    (workspace / "dev.txt").write_text("trl==1.16.1")
    assert inputs.cache_key(asked) != (key, prefix)


def run_install(python, tmp_path, asked):
    """Run the step without a network; what is installed already is enough."""
    file = tmp_path / "inputs.json"
    file.write_text(json.dumps(dataclasses.asdict(asked)))
    variables = {"RESUMECHECK_INPUTS": str(file), "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    command = [python, ROOT / "ci" / "install.py"]
    Path(asked.report).mkdir(parents=True, exist_ok=True)
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)


@pytest.fixture
def other_python(tmp_path):
    """The Python of an environment of its own, which sees the packages of this one."""
    venv.create(tmp_path / "new")
    (own,) = (tmp_path / "new" / "lib").glob("python*/site-packages")
    (own / "outer.pth").write_text("\n".join(entry for entry in sys.path if entry.endswith("site-packages")))
    return tmp_path / "new" / "bin" / "python"


@pytest.mark.slow
def test_pip_installs_the_code_of_the_action_and_keeps_torch_as_it_is(other_python, workspace, tmp_path):
    import torch

    index = {"torch_index_url": "https://index.example/cpu", "torch_version": torch.__version__.partition("+")[0]}
    done = run_install(other_python, tmp_path, read(workspace, **index))
    assert done.returncode == 0, done.stdout + done.stderr
    assert next(other_python.parents[1].glob("lib/python*/site-packages/resumecheck/schema")).is_dir()
    assert f"resumecheck 0.1.0\ntorch {torch.__version__}\n" in done.stdout
    done = run_install(other_python, tmp_path, read(workspace, report_name="second", install="torch==2.4.0", **index))
    assert done.returncode == 2
    (annotation,) = [line for line in done.stdout.splitlines() if line.startswith("::error")]
    assert "the action cannot run::install: pip torch==2.4.0 failed" in annotation
    assert f"torch is kept at torch==={torch.__version__}: set torch-version" in annotation


def test_an_old_python_is_named(monkeypatch):
    monkeypatch.setattr(inputs, "OLDEST_PYTHON", (99, 0))
    with pytest.raises(inputs.UsageError, match="is too old: resumecheck needs"):
        inputs.main()


def test_a_step_that_the_interpreter_does_not_understand_is_an_error():
    names = {"inputs": {"a": "x"}, "steps": {"s": {"b": "y"}}}
    assert evaluate("inputs.a == 'x' && steps.s.outputs.b != ''", names) is True
    assert evaluate("always() && steps.none.outputs.b != ''", names) is False
    for unknown in ("contains(inputs.a, 'x')", "github.token", "inputs.a || inputs.b", "inputs.other"):
        with pytest.raises((AssertionError, ValueError, KeyError)):
            evaluate(unknown, names)
