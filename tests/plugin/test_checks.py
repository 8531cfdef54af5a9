"""A project that uses the plugin, as it is: pytest runs that train, each made once for all that is claimed of it."""

import re
import shutil

import pytest

from tests.made_once import made_once
from tests.plugin.outside import EXAMPLE, PROJECT, outcomes, properties, ran, run_pytest

TARGET = "masked_words.py:build"


def files(directory, **tests):
    """A project with the example, whose `build` loses state and whose `build_keyed` does not, and with tests."""
    shutil.copy(EXAMPLE, directory)
    for name, file in tests.items():
        shutil.copy(PROJECT / f"{file}.py", directory / f"{name}.py")
    return directory


@pytest.mark.slow
class TestAProject:
    """All kinds of tests, with every report, in directories and files whose names are not ASCII."""

    @pytest.fixture
    def place(self, tmp_path_factory):
        def make(directory):
            home = directory / "projekt-größe 計算"
            home.mkdir()
            tests = {"test_überprüfung": "failures", "test_factories": "factories"}
            files(home, **tests, test_points="points", test_precedence="precedence")
            shutil.copy(EXAMPLE, home / "maskiert_größe.py")
            (home / "pytest.ini").write_text(
                "[pytest]\nresumecheck = true\nresumecheck_steps = 6\nresumecheck_at = 2\n", encoding="utf-8"
            )
            github = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(home), "GITHUB_STEP_SUMMARY": "summary.md"}
            options = ["--resumecheck-steps=4", "--resumecheck-html=berichte-ä", "--resumecheck-cache=läufe"]
            run_pytest(home, *options, "--junit-xml=junit.xml", "-v", **github)

        return made_once(tmp_path_factory, "project", make) / "projekt-größe 計算"

    def test_what_can_be_checked_passes_and_what_cannot_is_said(self, place):
        found = {name: outcome for name, outcome in outcomes(ran(place)).items() if "test_factories" in name}
        assert len(found) == 13
        failed = [name for name, outcome in found.items() if outcome != "PASSED"]
        assert failed == ["test_factories.py::test_what_fails_while_it_is_made"]
        ran(place).stdout.fnmatch_lines(["*there is no data*", "*: TargetError", "FAILED *test_what_fails_while*"])

    def test_a_call_wins_over_the_marker_over_the_command_line_over_the_ini_file(self, place):
        found = {name: outcome for name, outcome in outcomes(ran(place)).items() if "precedence" in name}
        assert list(found.values()) == ["PASSED"] * 6

    def test_the_message_is_the_explanation_and_nothing_of_the_plugin(self, place):
        result = ran(place)
        result.stdout.fnmatch_lines(
            [
                "DIVERGED  maskiert_größe.py:build: a resumed run is not the same run",
                "resumed from step 2: the first difference is at step 3, in data-content",
                "*RC204 data-content*",
                "*the steps around it*",
                "  reproduce   pytest --resumecheck 'test_überprüfung.py::test_training'",
                "test_überprüfung.py:11: ResumeDivergence",
                "FAILED test_überprüfung.py::test_training - diverged at step 3 in data-content*",
            ]
        )
        result.stdout.no_fnmatch_line("*resumecheck/plugin*")
        result.stdout.no_fnmatch_line("*Traceback*")

    def test_the_verdict_is_in_the_junit_properties(self, place):
        found = properties(place / "junit.xml")
        assert found["test_training"]["resumecheck.verdict"] == "diverged"
        assert found["test_training"]["resumecheck.target"] == "maskiert_größe.py:build"
        assert found["test_training"]["resumecheck.first_divergence.step"] == "3"
        assert found["test_training"]["resumecheck.first_divergence.component"] == "data-content"
        assert found["test_masks[at=7]"]["resumecheck.verdict"] == "equivalent"
        assert found["test_masks[at=7]"]["resumecheck.resume_points"] == "7"
        assert found["test_pieces"] == {}

    def test_a_test_over_resume_points_is_an_item_for_each(self, place):
        found = {name.partition("::")[2]: what for name, what in outcomes(ran(place)).items() if "test_points" in name}
        assert found == {
            "test_masks[at=3]": "FAILED",
            "test_masks[at=7]": "PASSED",
            "test_keyed[True-2]": "PASSED",
            "test_keyed[True-3]": "PASSED",
            "test_the_point_of_the_ini_file[at=2]": "PASSED",
        }
        ran(place).stdout.fnmatch_lines(["  reproduce   pytest --resumecheck 'test_points.py::test_masks[[]at=3[]]'"])

    def test_the_items_of_a_test_share_a_check(self, place):
        found = properties(place / "junit.xml")
        executed = [int(found[f"test_keyed[True-{point}]"]["executed"]) for point in (2, 3)]
        # Reference and source run, resumed runs from 2 and from 3, and the second resumes: in one check.
        assert executed[0] == executed[1] > (6 + 6) + (4 + 3)

    def test_a_failing_comparison_of_losses_tells_the_step_and_both_values(self, place):
        ran(place).stdout.re_match_lines(
            [
                r"E +(AssertionError: )?assert loss of the run resumed after step 2, steps 3 to 4 == "
                "loss of the uninterrupted run, steps 3 to 4",
                r"E +first difference at step 3:",
                r"E +left +0\.\d{9,}",
                r"E +right +0\.\d{9,}",
                r"E +apart +\S+, [\d,]+ ulp \(float32\)",
                r"E +2 of 2 steps differ: 3-4",
            ],
            consecutive=True,
        )

    def test_a_failing_comparison_of_runs_tells_the_first_difference(self, place):
        ran(place).stdout.re_match_lines(
            [
                r"E +(AssertionError: )?assert the run resumed after step 2 == the uninterrupted run",
                r"E +first difference at step 3, batch-content: batch of micro-batch 0 \(data-content\)",
            ],
            consecutive=True,
        )

    def test_a_page_for_each_check_and_an_index(self, place):
        names = sorted(path.name for path in (place / "berichte-ä").iterdir())
        assert "index.html" in names
        assert "test_überprüfung.py-test_that_a_difference_is_found.html" in names
        assert "test_überprüfung.py-test_training.html" in names
        index = (place / "berichte-ä" / "index.html").read_text(encoding="utf-8")
        assert all(name in index for name in names if "überprüfung" in name)
        page = place / "berichte-ä" / "test_überprüfung.py-test_training.html"
        assert "in data-content" in page.read_text(encoding="utf-8")
        ran(place).stdout.fnmatch_lines(["resumecheck: the reports are in *berichte-ä, see index.html"])

    def test_reference_runs_are_kept_where_that_is_asked_for(self, place):
        assert list((place / "läufe").glob("*/*/entry.json"))
        ran(place).stdout.no_fnmatch_line("*reference run was not*")

    def test_annotations_and_a_summary_for_github(self, place):
        commands = [line.partition(",title=")[0] for line in ran(place).outlines if line.startswith("::")]
        # Failures without a verdict (the pieces, what fails while it is made) come after those with one.
        assert "::error file=test_überprüfung.py,line=11" in commands
        assert "::error file=test_überprüfung.py,line=25" in commands
        assert "::error file=test_points.py,line=9" in commands
        summary = (place / "summary.md").read_text(encoding="utf-8")
        # Five checks went wrong; the tests of three of them expect just that.
        assert [summary.count(mark) for mark in ("| ❌ |", "| ⚠️ |", "its test passed")] == [4, 1, 3]


@pytest.mark.slow
class TestTargets:
    """Items of a target, from another directory than that of the ini file, in processes of pytest-xdist."""

    @pytest.fixture
    def place(self, tmp_path_factory):
        def make(directory):
            files(directory)
            ini = f"[pytest]\nresumecheck_targets = {TARGET}\nresumecheck_steps = 9\nresumecheck_at = 2\n"
            (directory / "pytest.ini").write_text(ini)
            (directory / "elsewhere").mkdir()
            options = ["--resumecheck", "--resumecheck-at=3,7", "-n2", "-v"]
            reports = ["--junit-xml=junit.xml", "--resumecheck-html=report.html"]
            run_pytest(directory / "elsewhere", *options, *reports)
            (directory / "again").mkdir()
            run_pytest(directory / "again", *options[:2], "--lf", "--collect-only", "-q")

        return made_once(tmp_path_factory, "targets", make)

    def test_each_resume_point_of_a_target_is_an_item(self, place):
        result = ran(place / "elsewhere")
        result.assert_outcomes(failed=1, passed=1)
        result.stdout.fnmatch_lines(
            [
                "DIVERGED  ../masked_words.py:build: a resumed run is not the same run",
                "resumed from step 3: *",
                "  reproduce   resumecheck verify ../masked_words.py:build --steps 9 --at 3",
            ]
        )
        result.stdout.fnmatch_lines([f"FAILED *resumecheck::../{TARGET}[[]at=3[]] - diverged at*"])
        result.stdout.no_fnmatch_line("*resumed from step 7*")
        result.stdout.no_fnmatch_line("*resumecheck/plugin*")

    def test_the_processes_are_both_at_work(self, place):
        assert workers(ran(place / "elsewhere")) == {"[gw0]", "[gw1]"}

    def test_each_item_has_the_verdict_of_its_point_as_properties(self, place):
        found = properties(place / "elsewhere" / "junit.xml")
        points = {name: one["resumecheck.resume_points"] for name, one in found.items()}
        assert points == {f"../{TARGET}[at={point}]": str(point) for point in (3, 7)}

    def test_only_what_failed_last_is_selected_again(self, place):
        items = [line for line in ran(place / "again").outlines if "resumecheck::" in line]
        assert items == [f"resumecheck::../{TARGET}[at=3]"]

    def test_what_other_processes_check_is_one_page(self, place):
        report = (place / "elsewhere" / "report.html").read_text(encoding="utf-8")
        assert report.count("<article") == 1
        assert report.count("<h2 id=") == len(set(re.findall(r'<h2 id="[^"]+"', report)))


def workers(result):
    """The processes of pytest-xdist that ran a test."""
    return {line.split()[0] for line in result.outlines if re.search(r"^\[gw\d+\] .* (PASSED|FAILED) ", line)}
