"""The plugin as a project that uses it sees it: each test is a pytest run inside pytest."""

import re
import shutil
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "examples" / "masked_words.py"

USES_A_FIXTURE = """
    def test_training(resumecheck):
        resumecheck("masked_words.py:build", steps=4, at=2)
"""


@pytest.fixture
def project(pytester):
    """A project with the example `masked_words.py`, whose `build` loses state and whose `build_keyed` does not."""
    shutil.copy(EXAMPLE, pytester.path)
    return pytester


class TestWithoutTheOption:
    def test_a_test_that_uses_a_fixture_is_skipped_and_says_why(self, project):
        project.makepyfile(USES_A_FIXTURE)
        result = project.runpytest("-rs")
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines(["SKIPPED*: resumecheck trains models: runs only with --resumecheck"])

    @pytest.mark.parametrize("fixture", ["reference_run", "resumed_run", "assert_resume_equivalent"])
    def test_each_of_the_pieces_is_skipped(self, project, fixture):
        project.makepyfile(f"def test_training({fixture}): assert False")
        project.runpytest().assert_outcomes(skipped=1)

    def test_a_marked_test_is_skipped(self, project):
        project.makepyfile("import pytest\n@pytest.mark.resumecheck\ndef test_training(): assert False")
        project.runpytest().assert_outcomes(skipped=1)

    def test_a_fixture_that_is_asked_for_while_the_test_runs_skips_it(self, project):
        project.makepyfile("def test_training(request): request.getfixturevalue('resumecheck')")
        project.runpytest().assert_outcomes(skipped=1)

    def test_a_target_is_one_item_that_is_skipped(self, project):
        result = project.runpytest("--resumecheck-target", "masked_words.py:build", "-v")
        result.assert_outcomes(skipped=1)
        result.stdout.fnmatch_lines(["resumecheck::masked_words.py:build SKIPPED*"])

    def test_a_projects_own_fixture_of_the_same_name_is_left_alone(self, project):
        project.makepyfile(
            """
            import pytest

            @pytest.fixture
            def reference_run():
                return 42

            def test_theirs(reference_run):
                assert reference_run == 42
            """
        )
        project.runpytest().assert_outcomes(passed=1)


class TestOptions:
    def test_the_marker_is_known_and_selects(self, project):
        project.makepyfile(USES_A_FIXTURE, test_other="def test_other(): pass")
        project.runpytest("--strict-markers", "-m", "resumecheck").assert_outcomes(skipped=1, deselected=1)
        project.runpytest("--markers").stdout.fnmatch_lines(["@pytest.mark.resumecheck(steps=, at=, horizon=,*"])

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("--resumecheck-steps=none", "*option --resumecheck-*: steps: 'none' is not a number of optimizer steps*"),
            ("--resumecheck-steps=0", "*option --resumecheck-*: steps: '0' is not a number*"),
            ("--resumecheck-at=3,x", "*option --resumecheck-*: at: '3,x' is not a list of steps*"),
            ("--resumecheck-horizon=far", "*option --resumecheck-*: horizon: 'far' is not known*"),
        ],
    )
    def test_a_wrong_option_is_a_usage_error(self, project, option, message):
        result = project.runpytest("--resumecheck", option)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([message])
        result.stderr.no_fnmatch_line("*Traceback*")

    def test_a_wrong_ini_option_is_a_usage_error(self, project):
        project.makeini("[pytest]\nresumecheck_steps = many")
        result = project.runpytest()
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*ini option resumecheck_*: steps: 'many' is not a number*"])

    @pytest.mark.parametrize(
        ("marker", "message"),
        [
            ("resumecheck(step=4)", "*@pytest.mark.resumecheck: 'step' is not an option of a check; known are: steps*"),
            ("resumecheck(4)", "*@pytest.mark.resumecheck takes only keywords*got 4*"),
            ("resumecheck(horizon='far')", "*@pytest.mark.resumecheck: horizon: 'far' is not known*"),
        ],
    )
    def test_a_wrong_marker_is_an_error_of_its_test_without_a_traceback(self, project, marker, message):
        project.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_training(resumecheck): pass")
        result = project.runpytest("--resumecheck")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([message])
        result.stdout.no_fnmatch_line("*resumecheck/plugin*")

    def test_a_failure_is_one_line_where_that_is_asked_for(self, project):
        project.makepyfile(test_it="def test_training(resumecheck):\n    resumecheck('missing.py:build')")
        result = project.runpytest_subprocess("--resumecheck", "--tb=line")
        result.assert_outcomes(failed=1)
        lines = [line for line in result.outlines if "target 'missing.py:build': the file" in line]
        assert [line.partition(" ")[0] for line in lines] == [f"{project.path / 'test_it.py'}:2:", "FAILED"]

    def test_an_error_at_setup_is_said_where_one_line_is_asked_for(self, project):
        project.makepyfile("import pytest\n@pytest.mark.resumecheck(4)\ndef test_training(resumecheck): pass")
        project.runpytest("--resumecheck", "--tb=line").stdout.fnmatch_lines(["*takes only keywords*"])

    def test_the_plugin_can_be_switched_off(self, project):
        project.makepyfile("def test_other(): pass")
        project.runpytest_subprocess("-p", "no:resumecheck").assert_outcomes(passed=1)
        assert project.runpytest_subprocess("-p", "no:resumecheck", "--resumecheck").ret == pytest.ExitCode.USAGE_ERROR


class TestAFailure:
    def test_the_message_is_the_explanation_and_nothing_of_the_plugin(self, project):
        project.makepyfile(test_it=USES_A_FIXTURE)
        result = project.runpytest_subprocess("--resumecheck", "--junit-xml=junit.xml")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                "DIVERGED  masked_words.py:build: a resumed run is not the same run",
                "resumed from step 2: the first difference is at step 3, in data-content",
                "*RC204 data-content*",
                "*the steps around it*",
                "  reproduce   pytest --resumecheck test_it.py::test_training",
                "test_it.py:2: ResumeDivergence",
                "FAILED test_it.py::test_training - diverged at step 3 in data-content*",
            ]
        )
        result.stdout.no_fnmatch_line("*resumecheck/plugin*")
        result.stdout.no_fnmatch_line("*Traceback*")
        junit = (project.path / "junit.xml").read_text(encoding="utf-8")
        assert '<property name="resumecheck.verdict" value="diverged"' in junit
        assert '<property name="resumecheck.first_divergence.step" value="3"' in junit
        assert '<property name="resumecheck.first_divergence.component" value="data-content"' in junit


@pytest.mark.slow
class TestFactories:
    def test_what_can_be_checked_passes_and_what_cannot_is_said(self, project):
        project.makepyfile(
            """
            import functools
            import threading

            import masked_words
            import pytest
            from masked_words import SentencesMaskedByKey, build, build_keyed

            from resumecheck import ResumecheckError, ResumeDivergence, TargetError, UsageError

            pytestmark = pytest.mark.resumecheck(steps=4, at=[2])

            def build_here(output_dir):
                return build_keyed(output_dir)

            def fails(output_dir):
                raise ValueError("there is no data")

            def test_a_function_of_another_module(resumecheck):
                verdict = resumecheck(build_keyed)
                assert [point.step for point in verdict.resume_points] == [2]
                assert verdict.steps == 4

            def test_a_function_of_the_test_file(resumecheck):
                assert resumecheck(build_here).equivalent

            def test_a_partial(resumecheck):
                assert resumecheck(functools.partial(build, sentences=SentencesMaskedByKey)).equivalent

            def test_a_closure(resumecheck):
                rate = 3e-4

                def build_with_rate(output_dir):
                    trainer = build_keyed(output_dir)
                    trainer.args.learning_rate = rate
                    return trainer

                assert resumecheck(build_with_rate).equivalent

            @pytest.mark.resumecheck(steps=5)
            def test_the_closest_marker_wins_and_a_call_wins_over_it(resumecheck):
                assert resumecheck(build_keyed).steps == 5
                assert resumecheck(build_keyed, steps=4).steps == 4

            def test_a_closure_over_what_cannot_be_sent(resumecheck):
                lock = threading.Lock()
                with pytest.raises(UsageError, match="cannot be sent to another process"):
                    resumecheck(lambda output_dir: lock)

            def test_a_factory_of_something_else(resumecheck):
                with pytest.raises(UsageError, match="expected a transformers.Trainer"):
                    resumecheck(lambda output_dir: None)

            def test_a_factory_that_fails(resumecheck):
                with pytest.raises(TargetError, match="(?s)ERROR .*there is no data"):
                    resumecheck(fails)

            def test_a_run_that_does_not_repeat_itself(resumecheck):
                def build_unseeded(output_dir):
                    import os
                    import torch

                    trainer = build_keyed(output_dir)
                    torch.nn.init.normal_(
                        trainer.model.classifier.weight,
                        generator=torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big")),
                    )
                    return trainer

                with pytest.raises(ResumecheckError, match="NONDETERMINISTIC"):
                    resumecheck(build_unseeded)

            def test_a_resume_point_past_the_end(resumecheck):
                with pytest.raises(UsageError, match="resume point 9 is not inside the run of 4 steps"):
                    resumecheck(build_keyed, at=9)

            def test_the_evidence_comes_with_the_error(resumecheck):
                with pytest.raises(ResumeDivergence) as caught:
                    resumecheck(build)
                assert caught.value.verdict.resume_points[0].findings[0].component == "data-content"

            def test_pieces_of_an_equal_run(reference_run, resumed_run, assert_resume_equivalent):
                reference, resumed = reference_run(build_keyed), resumed_run(build_keyed, at=2)
                assert_resume_equivalent(reference, resumed)
                assert resumed.loss[3:] == reference.loss[3:]
                assert resumed.loss[:3] == [None, None, None]

            def test_pieces_of_another_run(reference_run, resumed_run, assert_resume_equivalent):
                reference, resumed = reference_run(build), resumed_run(build, at=2)
                assert_resume_equivalent(reference, resumed, quantities=["learning-rate"])
                with pytest.raises(ResumeDivergence, match="at step 3, loss"):
                    assert_resume_equivalent(reference, resumed, quantities=["loss"])

            def test_what_fails_while_it_is_made(reference_run):
                reference_run(fails)
            """
        )
        result = project.runpytest_subprocess("--resumecheck")
        result.assert_outcomes(passed=13, failed=1)
        result.stdout.fnmatch_lines(["*there is no data*", "*: TargetError", "FAILED *test_what_fails_while*"])


class TestTargets:
    def test_each_resume_point_of_a_target_is_an_item(self, project):
        result = project.runpytest_subprocess(
            "--resumecheck",
            "--resumecheck-target=masked_words.py:build",
            "--resumecheck-steps=9",
            "--resumecheck-at=3,7",
            "-v",
        )
        result.assert_outcomes(failed=1, passed=1)
        result.stdout.fnmatch_lines(
            [
                "resumecheck::masked_words.py:build[[]at=3[]] FAILED*",
                "resumecheck::masked_words.py:build[[]at=7[]] PASSED*",
                "DIVERGED  masked_words.py:build: a resumed run is not the same run",
                "resumed from step 3: *",
                "  reproduce   resumecheck verify masked_words.py:build --steps 9 --at 3",
                "FAILED resumecheck::masked_words.py:build[[]at=3[]] - diverged at*",
            ]
        )
        result.stdout.no_fnmatch_line("*resumed from step 7*")
        result.stdout.no_fnmatch_line("*resumecheck/plugin*")

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("missing.py:build", "*the file missing.py does not exist*"),
            ("masked_words.py", "*expected 'pkg.mod:build' or 'path/file.py:build'*"),
            ("masked_words.py:nothing", "*masked_words has no 'nothing'*"),
            ("no_such_package:build", "*there is no module 'no_such_package'*"),
        ],
    )
    def test_a_wrong_target_is_one_message(self, project, target, message):
        result = project.runpytest_subprocess("--resumecheck", f"--resumecheck-target={target}")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines([message, f"ERROR resumecheck::{target}*"])
        result.stdout.no_fnmatch_line("*INTERNALERROR*")
        result.stdout.no_fnmatch_line("*Traceback*")
        result.stdout.no_fnmatch_line("*resumecheck/plugin*")

    @pytest.mark.slow
    def test_targets_of_the_ini_file_are_relative_to_it_and_options_give_way_to_the_command_line(
        self, project, monkeypatch
    ):
        project.makeini(
            """
            [pytest]
            resumecheck_targets = masked_words.py:build_keyed
            resumecheck_steps = 5
            resumecheck_at = 2
            """
        )
        monkeypatch.chdir(project.mkdir("elsewhere"))
        result = project.runpytest_subprocess("--resumecheck", "-v", "--resumecheck-at=3")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["*resumecheck::../masked_words.py:build_keyed[[]at=3[]] PASSED*"])

    @pytest.mark.slow
    def test_processes_of_xdist_check_side_by_side(self, project):
        project.makepyfile(USES_A_FIXTURE)
        result = project.runpytest_subprocess(
            "--resumecheck",
            "--resumecheck-target=masked_words.py:build_keyed",
            "--resumecheck-steps=4",
            "--resumecheck-at=2,3",
            "-n2",
            "--dist=loadgroup",
        )
        result.assert_outcomes(failed=1, passed=2)
        result.stdout.fnmatch_lines(["DIVERGED  masked_words.py:build: *"])

    def test_a_wrong_target_under_xdist_is_one_message(self, project):
        result = project.runpytest_subprocess("--resumecheck", "--resumecheck-target=missing.py:build", "-n1")
        assert result.ret != 0
        result.stdout.fnmatch_lines(["*the file missing.py does not exist*"])
        result.stdout.no_fnmatch_line("*INTERNALERROR*")


class TestReports:
    @pytest.mark.slow
    def test_a_page_for_each_check_an_index_annotations_and_a_summary(self, project, monkeypatch):
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("GITHUB_WORKSPACE", str(project.path))
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
        project.makepyfile(
            test_it="""
            import pytest

            build = "masked_words.py:build"

            def test_training(resumecheck):
                resumecheck(build, steps=4, at=2)

            def test_that_a_difference_is_found(resumecheck):
                with pytest.raises(AssertionError):
                    resumecheck(build, steps=4, at=2)

            def test_pieces(reference_run, resumed_run, assert_resume_equivalent):
                assert_resume_equivalent(reference_run(build, steps=4), resumed_run(build, steps=4, at=2))
            """
        )
        target = ["--resumecheck-target=masked_words.py:build", "--resumecheck-steps=4", "--resumecheck-at=2"]
        result = project.runpytest_subprocess("--resumecheck", "--resumecheck-html=reports", *target)
        result.assert_outcomes(failed=3, passed=1)
        names = [
            "index.html",
            "resumecheck-masked_words.py-build.html",
            "test_it.py-test_that_a_difference_is_found.html",
            "test_it.py-test_training.html",
        ]
        assert sorted(path.name for path in (project.path / "reports").iterdir()) == names
        index = (project.path / "reports" / "index.html").read_text(encoding="utf-8")
        assert all(name in index for name in names[1:])
        assert "in data-content" in (project.path / "reports" / names[1]).read_text(encoding="utf-8")
        commands = [line.partition(",title=")[0] for line in result.outlines if line.startswith("::")]
        source = (project.path / "masked_words.py").read_text(encoding="utf-8")
        line = source[: source.index("def build(")].count("\n") + 1
        assert commands == [
            "::error file=test_it.py,line=6",
            f"::error file=masked_words.py,line={line}",
            "::error file=test_it.py,line=13",
        ]
        result.stdout.fnmatch_lines(["resumecheck: the reports are in *reports, see index.html"])
        summary = (project.path / "summary.md").read_text(encoding="utf-8")
        assert [summary.count(mark) for mark in ("| ❌ |", "its test passed", "### ")] == [3, 1, 3]

    @pytest.mark.slow
    def test_checks_of_another_process_are_one_page(self, project):
        project.makepyfile(
            """
            def test_one(resumecheck):
                resumecheck("masked_words.py:build_keyed", steps=4, at=2)

            def test_other(resumecheck):
                resumecheck("masked_words.py:build_keyed", steps=4, at=3)
            """
        )
        project.makeini("[pytest]\nresumecheck_html = report.html")
        result = project.runpytest_subprocess("--resumecheck", "-n1")
        result.assert_outcomes(passed=2)
        report = (project.path / "report.html").read_text(encoding="utf-8")
        assert report.count("<article") == 2
        assert report.count("<h2 id=") == len(set(re.findall(r'<h2 id="[^"]+"', report)))
        result.stdout.no_fnmatch_line("::error*")

    @pytest.mark.slow
    def test_without_an_option_or_a_variable_nothing_is_reported(self, project):
        project.makepyfile(
            """
            import pytest
            import sys

            def test_nothing_is_loaded_for_reports(resumecheck):
                with pytest.raises(Exception):
                    resumecheck("missing.py:build")
                assert "resumecheck.report.session" not in sys.modules
            """
        )
        result = project.runpytest_subprocess("--resumecheck")
        result.assert_outcomes(passed=1)
        result.stdout.no_fnmatch_line("*resumecheck: the report*")

    def test_without_jinja2_the_run_ends_before_it_starts(self, project):
        project.makepyfile(USES_A_FIXTURE)
        project.makeconftest("import sys\nsys.modules['jinja2'] = None")
        result = project.runpytest_subprocess("--resumecheck", "--resumecheck-html=reports")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*--resumecheck-html needs the package 'jinja2'*pip install*"])

    def test_a_place_that_cannot_be_written_is_a_usage_error(self, project):
        (project.path / "taken").touch()
        for place in ("taken", "missing/report.html"):
            result = project.runpytest("--resumecheck", f"--resumecheck-html={place}")
            assert result.ret == pytest.ExitCode.USAGE_ERROR
            result.stderr.fnmatch_lines([f"*--resumecheck-html *{place}: *cannot be*"])
