"""Options, ini file, marker and fixtures, as far as nothing is trained."""

import itertools

import pytest

from resumecheck.errors import UsageError
from resumecheck.options import CHECK, NAMES, PLUGIN, read_options
from resumecheck.plugin import settings

USES_A_FIXTURE = """
    def test_training(resumecheck):
        resumecheck("masked_words.py:build", steps=4, at=2)
"""


class TestWithoutTheOption:
    def test_tests_that_train_are_skipped_and_say_why(self, project):
        project.makepyfile(
            """
            import pytest

            def test_a_check(resumecheck): assert False
            def test_reference(reference_run): assert False
            def test_resumed(resumed_run): assert False
            def test_compare(assert_resume_equivalent): assert False
            def test_point(resume_point): assert False

            @pytest.mark.resumecheck(at=[3, 7])
            def test_points(resume_point): assert False

            @pytest.mark.resumecheck
            def test_marked(): assert False

            def test_asked_for_while_the_test_runs(request): request.getfixturevalue("resumecheck")
            """,
            test_other="""
            import pytest

            @pytest.fixture
            def reference_run():
                return 42

            def test_a_fixture_of_the_project_that_has_the_same_name(reference_run):
                assert reference_run == 42
            """,
        )
        result = project.runpytest("-v", "-rs", "--resumecheck-target=masked_words.py:build")
        result.assert_outcomes(skipped=10, passed=1)
        result.stdout.fnmatch_lines(
            [
                "*::test_points[[]at=3[]] SKIPPED*",
                "*::test_points[[]at=7[]] SKIPPED*",
                "resumecheck::masked_words.py:build SKIPPED*",
                "SKIPPED*: resumecheck trains models: runs only with --resumecheck",
            ]
        )

    def test_the_plugin_can_be_switched_off(self, project):
        project.makepyfile("def test_other(): pass")
        project.runpytest_subprocess("-p", "no:resumecheck").assert_outcomes(passed=1)
        assert project.runpytest_subprocess("-p", "no:resumecheck", "--resumecheck").ret == pytest.ExitCode.USAGE_ERROR

    def test_the_marker_is_known_and_selects(self, project):
        project.makepyfile(USES_A_FIXTURE, test_other="def test_other(): pass")
        project.runpytest("--strict-markers", "-m", "resumecheck").assert_outcomes(skipped=1, deselected=1)
        project.runpytest("--markers").stdout.fnmatch_lines(["@pytest.mark.resumecheck(steps=, at=, horizon=,*"])


#: Option -> two texts, and what is read from the second.
TEXTS = {
    "steps": ("5", "6", 6),
    "at": ("2", "3,4", [3, 4]),
    "horizon": ("end", "next", "next"),
    "tolerance": ("ulp:1", "close:1e-5,0", "close:1e-5,0"),
    "interrupt": ("sigterm", "sigkill", "sigkill"),
    "on_resume": ("seed=1", "seed=2", {"seed": "2"}),
    "twice": ("false", "true", True),
}
LEVELS = ("ini", "command line", "marker", "call")


def at_levels(pytester, low, high):
    """What a test reads where one level says the first texts, and a higher one the second."""
    said = {level: {name: texts[index] for name, texts in TEXTS.items()} for index, level in enumerate((low, high))}
    options = {option.name: option for option in PLUGIN}
    lines = [f"{options[name].ini} = {text}" for name, text in said.get("ini", {}).items()]
    pytester.makeini("\n".join(["[pytest]", *lines]))
    given = [
        options[name].flag if options[name].kind == "flag" else f"{options[name].flag}={text}"
        for name, text in said.get("command line", {}).items()
        if text != "false"
    ]
    values = {
        level: {
            name: {"seed": text[5:]} if name == "on_resume" else text == "true" if name == "twice" else text
            for name, text in texts.items()
        }
        for level, texts in said.items()
    }
    marker = ", ".join(f"{name}={value!r}" for name, value in values.get("marker", {}).items())
    file = pytester.makepyfile(f"import pytest\n@pytest.mark.resumecheck({marker})\ndef test_training(): pass")
    (item,) = pytester.genitems([pytester.getnode(pytester.parseconfigure(*given), file)])
    return settings.of_call(item, values.get("call", {}), "call")


@pytest.mark.parametrize(("low", "high"), list(itertools.combinations(LEVELS, 2)))
def test_the_higher_level_wins_for_each_option(pytester, low, high):
    assert at_levels(pytester, low, high) == {name: texts[2] for name, texts in TEXTS.items()}


class TestMistakes:
    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("--resumecheck-steps=none", "option --resumecheck-*: steps: 'none' is not a number of optimizer steps"),
            ("--resumecheck-steps=0", "option --resumecheck-*: steps: '0' is not a number"),
            ("--resumecheck-at=3,x", "option --resumecheck-*: at: '3,x' is not a list of steps"),
            ("--resumecheck-at=weekly", "option --resumecheck-*: at: 'weekly' is not known"),
            ("--resumecheck-horizon=far", "option --resumecheck-*: horizon: 'far' is not known"),
            ("--resumecheck-tolerance=loose", "option --resumecheck-*: tolerance 'loose': expected bitwise"),
            ("--resumecheck-interrupt=politely", "option --resumecheck-*: interrupt: 'politely' is not known"),
            ("--resumecheck-on-resume=seed", "option --resumecheck-*: on_resume: ['seed'] is not a mapping"),
            ("--override-ini=resumecheck_steps=many", "ini option resumecheck_*: steps: 'many' is not a number"),
        ],
    )
    def test_a_wrong_option_is_a_usage_error(self, project, option, message):
        with pytest.raises(pytest.UsageError) as raised:
            project.parseconfigure(option)
        assert str(raised.value).startswith(message)

    def test_a_usage_error_is_a_message(self, project):
        result = project.runpytest("--resumecheck-steps=none")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*option --resumecheck-*: steps: 'none' is not a number*"])
        result.stderr.no_fnmatch_line("*Traceback*")

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"step": 4}, "'step' is not an option of a check; known are: steps, at,"),
            ({"steps": 0}, "steps: 0 is not a number of optimizer steps; give a whole number from 1 on"),
            ({"steps": 3.5}, "steps: 3.5 is not"),
            ({"steps": True}, "steps: True is not"),
            ({"at": [4.5]}, "at: [4.5] is not a list of steps"),
            ({"at": []}, "at: [] names no resume point"),
            ({"at": 4.5}, "at: 4.5 is not a list of steps"),
            ({"at": [True]}, "at: [True] is not a list of steps"),
            ({"at": "0-per-epoch"}, "at: '0-per-epoch' is not known; give steps such as 3,7 or one of: every, epoch"),
            ({"horizon": "far"}, "horizon: 'far' is not known; give one of: end, next"),
            ({"horizon": 3}, "horizon: 3 is not known"),
            ({"tolerance": 1e-5}, "tolerance: 1e-05 is not text; give bitwise, noise, ulp:N or close:RTOL,ATOL"),
            ({"tolerance": "close:1"}, "tolerance 'close:1': expected bitwise, noise, ulp:N"),
            ({"interrupt": "politely"}, "interrupt: 'politely' is not known; give one of: stop, sigterm, sigkill"),
            ({"on_resume": "seed"}, "on_resume: 'seed' is not a mapping of training arguments; expected KEY=VALUE or"),
            ({"on_resume": {"seed": [1]}}, "on_resume: 'seed': [1] cannot be given to a training argument"),
            ({"twice": "yes"}, "twice: 'yes' is not a truth value; give True or False"),
        ],
    )
    def test_what_a_marker_or_a_call_cannot_say(self, keywords, message):
        with pytest.raises(UsageError) as raised:
            read_options(keywords, "where")
        assert str(raised.value).startswith(f"where: {message}")

    @pytest.mark.parametrize(
        ("keywords", "read"),
        [
            ({"at": (3, 7)}, {"at": [3, 7]}),
            ({"at": range(1, 3)}, {"at": [1, 2]}),
            ({"at": "2-per-epoch", "steps": "12"}, {"at": "2-per-epoch", "steps": 12}),
            ({"on_resume": {"bf16": True, "seed": 7}}, {"on_resume": {"bf16": "True", "seed": "7"}}),
            ({"steps": None, "twice": False}, {"twice": False}),
        ],
    )
    def test_what_they_can(self, keywords, read):
        assert read_options(keywords, "where") == read

    def test_a_wrong_marker_is_an_error_that_names_its_test(self, project):
        project.makepyfile(
            test_it="""
            import pytest

            @pytest.mark.resumecheck(step=4)
            def test_unknown(resumecheck): pass

            @pytest.mark.resumecheck(4)
            def test_positional(): pass

            @pytest.mark.resumecheck(steps=4)
            class TestClass:
                @pytest.mark.resumecheck(horizon="far")
                def test_value(self): pass

                def test_right(self): pass

            @pytest.mark.resumecheck(at="epoch")
            def test_no_steps_for_points(resume_point): pass

            @pytest.mark.parametrize("resume_point", [2.5], indirect=True)
            def test_no_step(resume_point): pass
            """
        )
        messages = [
            "test_it.py::test_unknown: @pytest.mark.resumecheck: 'step' is not an option of a check; known are: *",
            "test_it.py::test_positional: @pytest.mark.resumecheck takes only keywords (steps, at, *), got 4",
            "test_it.py::TestClass::test_value: @pytest.mark.resumecheck: horizon: 'far' is not known; *",
        ]
        points = [
            "test_it.py::test_no_steps_for_points[[]at=?[]]: resume_point needs its steps before the target is built*",
            "test_it.py::test_no_step[[]2.5[]]: resume_point: 2.5 is not a step; *",
        ]
        result = project.runpytest("--resumecheck")
        result.assert_outcomes(errors=5, passed=1)
        result.stdout.fnmatch_lines(messages + points)
        result.stdout.no_fnmatch_line("*resumecheck/plugin*")
        # A marker is read where its test is to be skipped, too; and where an error is asked for in one line.
        result = project.runpytest("--tb=line")
        result.assert_outcomes(errors=3, skipped=3)
        result.stdout.fnmatch_lines(messages)

    def test_a_failure_is_one_line_where_that_is_asked_for(self, project):
        project.makepyfile(test_it="def test_training(reference_run):\n    reference_run('missing.py:build')")
        result = project.runpytest("--resumecheck", "--tb=line")
        result.assert_outcomes(failed=1)
        lines = [line for line in result.outlines if "target 'missing.py:build': the file" in line]
        assert [line.partition(" ")[0] for line in lines] == [f"{project.path / 'test_it.py'}:2:", "FAILED"]

    def test_the_first_failure_ends_the_run_where_that_is_asked_for(self, project):
        project.makepyfile(
            """
            import pytest

            @pytest.mark.resumecheck(steps=4, at=[2, 3])
            def test_training(reference_run, resume_point):
                reference_run("missing.py:build")
            """
        )
        result = project.runpytest("--resumecheck", "-x")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*the file missing.py does not exist", "FAILED *test_training[[]at=2[]]*"])

    def test_wrong_targets_are_messages(self, project):
        messages = {
            "missing.py:build": "*the file missing.py does not exist*",
            "masked_words.py": "*expected 'pkg.mod:build' or 'path/file.py:build'*",
        }
        targets = [f"--resumecheck-target={name}" for name in messages]
        result = project.runpytest("--resumecheck", *targets, "--resumecheck-at=every")
        result.assert_outcomes(errors=2)
        for target, message in messages.items():
            result.stdout.fnmatch_lines([message, f"ERROR resumecheck::{target}*"])
        for words in ("INTERNALERROR", "Traceback", "resumecheck/plugin"):
            result.stdout.no_fnmatch_line(f"*{words}*")

    def test_a_wrong_target_under_xdist_is_one_message(self, project):
        result = project.runpytest_subprocess("--resumecheck", "--resumecheck-target=missing.py:build", "-n1")
        assert result.ret != 0
        result.stdout.fnmatch_lines(["*the file missing.py does not exist*"])
        result.stdout.no_fnmatch_line("*INTERNALERROR*")


class TestReports:
    def test_without_an_option_or_a_variable_nothing_is_loaded_for_reports(self, project):
        project.makepyfile(
            """
            import pytest
            import sys

            def test_nothing_is_loaded(resumecheck, reference_run):
                with pytest.raises(Exception):
                    reference_run("missing.py:build")
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

    @pytest.mark.parametrize("place", ["taken", "missing/report.html"])
    def test_a_place_that_cannot_be_written_is_a_usage_error(self, project, place):
        (project.path / "taken").touch()
        with pytest.raises(pytest.UsageError, match=rf"--resumecheck-html .*{place}: .*cannot be"):
            project.parseconfigure("--resumecheck", f"--resumecheck-html={place}")


def test_each_option_has_an_ini_twin_and_each_option_of_a_check_all_four_places(pytester):
    config = pytester.parseconfigure()
    for option in PLUGIN:
        assert config.getoption(option.destination) is None
        assert config.getini(option.ini) in (None, False, [])
    assert tuple(option.name for option in PLUGIN if option.name) == NAMES == tuple(option.name for option in CHECK)


def test_with_groups_the_items_of_a_test_over_resume_points_stay_in_one_process(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.resumecheck(at=[1, 2, 3, 4, 5, 6])
        @pytest.mark.parametrize("case", ["a", "b"])
        def test_training(resume_point, case): pass
        """
    )
    result = pytester.runpytest_subprocess("--resumecheck", "-n2", "--dist=loadgroup", "-v")
    result.assert_outcomes(passed=12)
    passed = [line.split() for line in result.outlines if " PASSED " in line]
    assert len({words[0] for words in passed}) == 1
    assert all(words[-1].endswith("]") for words in passed)
