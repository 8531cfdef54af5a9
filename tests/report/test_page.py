import dataclasses
import sys
from html.parser import HTMLParser

import pytest
from recorded import make_evidence, one_ulp_above, recorded_run
from verdicts import equivalent_point, make_verdict, resume_point

from resumecheck.errors import UsageError
from resumecheck.evidence import Evidence
from resumecheck.report import page
from resumecheck.report.checked import Checked
from resumecheck.verdict import Finding

MARKUP = "<script>alert('x')</script>\"'&"


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, text):
        self.texts.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def checked(diverged):
    return Checked(diverged, make_evidence(recorded_run("resumed from 4", 4, loss={5: 9.0})))


def test_what_a_target_says_is_text_wherever_it_is_shown():
    finding = Finding("RC501", "hidden-state", "confirmed", MARKUP, MARKUP)
    point = resume_point(4, findings=(finding,), latent=(finding,))
    point = dataclasses.replace(point, first_divergence=dataclasses.replace(point.first_divergence, name=MARKUP))
    point = dataclasses.replace(
        point, first_divergence=dataclasses.replace(point.first_divergence, expected=MARKUP, got=MARKUP)
    )
    verdict = make_verdict("diverged", point, target=f"{MARKUP}:build", notes=(MARKUP,), findings=(finding,))
    verdict = dataclasses.replace(verdict, error=MARKUP, kept=MARKUP, versions={MARKUP: MARKUP})
    run = recorded_run(MARKUP, 4)
    evidence = make_evidence(run, environment={MARKUP: MARKUP}, arguments={MARKUP: MARKUP})
    parsed = Page(page.page([Checked(verdict, evidence, test=MARKUP, reproduce=MARKUP)]))
    assert "script" not in parsed.tags
    assert parsed.text.count(MARKUP) > 15


def test_nothing_is_loaded_and_nothing_is_run(checked):
    parsed = Page(page.page([checked]))
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(parsed.tags)
    assert all(value.startswith("#") for name, value in parsed.attributes if name in ("href", "src", "xlink:href"))
    assert not any(name.startswith("on") for name, _value in parsed.attributes)
    assert "url(" not in page.page([checked])
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in parsed.attributes


def test_every_outcome_has_a_page_with_and_without_evidence(verdict):
    for evidence in (None, make_evidence(recorded_run("resumed from 4", 4))):
        text = Page(page.page([Checked(verdict, evidence)])).text
        assert verdict.verdict.capitalize() in text
        assert "Not checked, or overridden" in text


def test_the_page_says_what_the_terminal_says(checked):
    text = Page(page.page([checked])).text
    for said in (
        "Resumed from step 4: the first difference is at step 5, in lr-scheduler",
        "likewise resumed from 9",
        "the learning-rate schedule is not restored: last_epoch is 0",
        "Save and load the scheduler's state_dict.",
        "max abs 1e-05, 9 ulp",
        "0.693147182 → 0.693147242",
        "load_best_model_at_end is off",
        "resumecheck verify train.py:build --steps 12 --at 4",
    ):
        assert said in text


def test_the_state_table_names_the_first_leaf_that_differs(checked):
    text = Page(page.page([checked])).text
    assert "Resumed from step 4: not as saved: lr-scheduler" in text
    assert "state last_epoch expected =4 got =0" in text
    assert "parameter encoder.weight expected float32[8,8]#73265dbb… got float32[8,8]#eff7252d…" in text


def test_every_id_is_there_once_and_every_link_leads_to_one(checked, equivalent):
    checks = [checked, Checked(equivalent, make_evidence(recorded_run("resumed from 4", 4))), checked]
    parsed = Page(page.page(checks))
    ids = [value for name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for name, value in parsed.attributes if name == "href"} <= set(ids)
    assert parsed.text.startswith("3 checks - resumecheck")


def test_an_index_links_to_the_pages_and_names_their_verdicts(checked, equivalent, tmp_path):
    page.write_index({"a.html": checked, "b.html": Checked(equivalent)}, tmp_path / "index.html", "--html")
    parsed = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert {"a.html", "b.html"} <= {value for name, value in parsed.attributes if name == "href"}
    assert "diverged at step 5 in lr-scheduler" in parsed.text


def test_a_report_of_two_hundred_steps_and_as_many_resume_points_stays_small():
    steps = 200
    points = [resume_point(step) for step in range(1, steps)]
    reference = recorded_run(steps=steps)
    loss = {step: one_ulp_above(reference.at("loss", step)) for step in range(1, steps + 1)}
    runs = [recorded_run(f"resumed from {step}", step, steps, loss=loss, grad_norm=loss) for step in range(1, steps)]
    evidence = make_evidence(*runs, steps=steps)
    text = page.page([Checked(make_verdict("diverged", *points, steps=steps), evidence)])
    assert len(text.encode()) < 500_000


def test_a_long_run_shows_the_numbers_around_its_first_difference():
    reference = recorded_run(steps=2000)
    run = recorded_run("resumed from 4", 4, 2000, loss={1500: 9.0})
    evidence = Evidence(reference, reference, make_evidence(run).resumed)
    verdict = make_verdict("diverged", resume_point(4), steps=2000)
    text = page.page([Checked(verdict, evidence)])
    assert '<th scope="row">1500' in text
    assert len(text.encode()) < 500_000


def test_evidence_crosses_a_process_border_as_it_is(checked):
    assert Checked.from_plain(checked.to_plain()) == checked
    failed = Checked(make_verdict("error", error="x"), None, "test_it.py::test", ("test_it.py", 3), "pytest", True)
    assert Checked.from_plain(failed.to_plain()) == failed


def test_a_missing_jinja2_is_said_with_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match=r"--html needs the package 'jinja2'.*pip install 'resumecheck\[report\]'"):
        page.require(tmp_path / "report.html", "--html")


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--html .*report\.html: cannot be written"):
        page.require(tmp_path / "missing" / "report.html", "--html")


def test_second_resumes_are_told_apart():
    verdict = make_verdict("equivalent", equivalent_point(4), equivalent_point(8, resumes=2))
    text = Page(page.page([Checked(verdict)])).text
    assert "Resumed from 4 and again from 8" in text
