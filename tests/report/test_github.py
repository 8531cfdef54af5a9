import dataclasses
import re
from html.parser import HTMLParser

import pytest
from verdicts import equivalent_point, make_verdict, resume_point

from resumecheck.report.checked import Checked
from resumecheck.report.github import annotation, annotations, append_summary, reports, summary
from resumecheck.verdict import Divergence, Finding


@pytest.fixture
def actions(tmp_path, monkeypatch):
    """The environment of a job, in an empty repository."""
    monkeypatch.chdir(tmp_path)
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }


def unescaped(text):
    for name, character in {"%2C": ",", "%3A": ":", "%0A": "\n", "%0D": "\r", "%25": "%"}.items():
        text = text.replace(name, character)
    return text


def parse(line):
    """Properties and message of a workflow command, read as GitHub's runner reads them."""
    command, _, message = line.removeprefix("::").partition("::")
    name, _, rest = command.partition(" ")
    assert name == "error"
    properties = dict(part.split("=", 1) for part in rest.split(","))
    return {key: unescaped(value) for key, value in properties.items()}, unescaped(message)


def test_outside_of_github_there_is_nothing(diverged, tmp_path):
    assert annotations([Checked(diverged)], {}) == []
    assert annotations([Checked(diverged)], {"GITHUB_ACTIONS": "false"}) == []
    append_summary([Checked(diverged)], {})
    assert not reports({})
    assert list(tmp_path.iterdir()) == []


def test_a_divergence_is_one_line_with_its_cause_and_advice(diverged, actions):
    (line,) = annotations([Checked(diverged)], actions)
    assert "\n" not in line
    properties, message = parse(line)
    assert properties["title"] == (
        "resumecheck: diverged at step 5 in lr-scheduler, resumed from step 4 (2 of 3 resume points)"
    )
    assert "RC404 lr-scheduler, confirmed: the learning-rate schedule is not restored" in message
    assert message.endswith("Save and load the scheduler's state_dict.")


def test_what_a_target_says_cannot_end_the_command_or_begin_another():
    told = "100%,a=b::c\r\n::error file=x::y%0A"
    properties, message = parse(annotation(("a,b:c%.py", 3), told, told))
    assert (properties["title"], message) == (told, told)
    assert properties["file"].endswith("a,b:c%.py")
    assert set(properties) == {"file", "line", "title"}


def test_a_failed_target_and_a_nondeterministic_one_are_annotated_and_an_equivalent_one_is_not(
    failed, nondeterministic, equivalent, actions
):
    lines = annotations([Checked(failed), Checked(nondeterministic), Checked(equivalent)], actions)
    assert [parse(line)[0]["title"].split(":")[1].strip() for line in lines] == ["error", "nondeterministic"]
    assert "ValueError: no data" in parse(lines[0])[1]


def test_a_divergence_that_a_test_expects_is_not_annotated(diverged, actions):
    assert annotations([Checked(diverged, test="test_it.py::test", passed=True)], actions) == []


def test_the_factory_is_found_without_importing_the_target(diverged, actions, tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "train.py").write_text("raise SystemExit\n\n\ndef build(output_dir):\n    pass\n")
    for target in ("pkg/train.py:build", f"{tmp_path}/pkg/train.py:build", "pkg.train:build"):
        (line,) = annotations([Checked(dataclasses.replace(diverged, target=target))], actions)
        assert line.startswith("::error file=pkg/train.py,line=4,title="), target


@pytest.mark.parametrize("target", ["make.<locals>.build", "no.such:build", "missing.py:build"])
def test_a_target_without_a_file_is_annotated_without_a_place(diverged, actions, target):
    (line,) = annotations([Checked(dataclasses.replace(diverged, target=target))], actions)
    assert line.startswith("::error title=")


def test_an_exception_is_annotated_where_it_was_raised(actions, tmp_path):
    error = f"the reference run failed after 0 steps: ValueError: no\n  at {tmp_path}/data.py:7 in load"
    (line,) = annotations([Checked(make_verdict("error", error=error))], actions)
    assert line.startswith("::error file=data.py,line=7,")
    failure = Divergence(5, "loading", "resume-failure", "exception", f"{tmp_path}/data.py:9 in load", None, "KeyError")
    point = resume_point(4, first_divergence=failure)
    (line,) = annotations([Checked(make_verdict("diverged", point))], actions)
    assert line.startswith("::error file=data.py,line=9,")


def test_the_place_of_a_test_comes_first(diverged, actions, tmp_path):
    (line,) = annotations([Checked(diverged, place=(str(tmp_path / "tests" / "test_it.py"), 12))], actions)
    assert line.startswith("::error file=tests/test_it.py,line=12,")


class Text(HTMLParser):
    """What a reader sees of HTML."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_the_summary_is_appended(diverged, equivalent, actions, tmp_path):
    for verdict in (diverged, equivalent):
        append_summary([Checked(verdict)], actions)
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert text.count("## resumecheck: is a resumed run the same run?") == 2
    assert "| ✅ |" in text
    assert "| ❌ |" in text
    assert "\n\n" in text[-2:] or text.endswith("\n")


def test_the_summary_has_every_resume_point_the_cause_and_the_whole_report(diverged):
    text = Text(summary([Checked(diverged)])).text
    assert "| 4 | the end | 8 | diverged | step 5, lr-scheduler | RC404, confirmed |" in text
    assert "What to do: Save and load the scheduler's state_dict." in text
    assert "DIVERGED  train.py:build: a resumed run is not the same run\n  12 steps" in text


def test_nothing_that_a_target_says_is_markup_in_the_summary():
    told = "a|b `c` **d** <img src=x> [e](f) @someone #1 ~~g~~ \\ _h_\n\n```\n# i"
    finding = Finding("RC501", "hidden-state", "confirmed", told, told)
    verdict = make_verdict("diverged", resume_point(4, findings=(finding,)), notes=(told,), target=f"{told}:build")
    markdown = summary([Checked(verdict, test=told)])
    assert not re.search(r"[`@~\\]|<img|\[e\]|(?<!&)#1|a\|b", markdown)
    parsed = Text(markdown)
    assert "img" not in parsed.tags
    assert " ".join(told.split()) in parsed.text
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5, 7}


def test_the_summary_of_many_failures_is_one_that_github_takes(diverged):
    big = make_verdict("diverged", *(resume_point(step) for step in range(1, 200)))
    text = summary([Checked(big)] * 400)
    assert len(text.encode()) < 1024 * 1024
    assert text.count("| ❌ |") == 400
    assert "More failed than there is room for here" in text


def test_many_annotations_are_no_more_than_github_shows(diverged, actions):
    assert len(annotations([Checked(diverged)] * 30, actions)) == 10


def test_a_summary_that_cannot_be_written_is_told_and_fails_nothing(equivalent, tmp_path, capsys):
    append_summary([Checked(equivalent)], {"GITHUB_STEP_SUMMARY": str(tmp_path / "missing" / "summary.md")})
    assert "cannot be written" in capsys.readouterr().err


def test_an_equivalent_check_is_one_row(equivalent):
    text = summary([Checked(equivalent), Checked(make_verdict("equivalent", equivalent_point(3)))])
    assert len(text.strip().splitlines()) == 6
