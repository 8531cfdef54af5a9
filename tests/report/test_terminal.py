import dataclasses
import io

import pytest
from rich.console import Console
from verdicts import equivalent_point, make_verdict, resume_point

from resumecheck.report.terminal import WIDTH, explanation, headline, render
from resumecheck.verdict import Finding, Settings


def rendered(verdict):
    console = Console(file=io.StringIO(), width=WIDTH + 20)
    render(verdict, console)
    return console.file.getvalue()


def test_the_explanation_names_step_component_values_and_distance(diverged):
    text = explanation(diverged)
    assert "resumed from step 4: the first difference is at step 5, in lr-scheduler" in text
    assert "learning_rate of group 0" in text
    assert "expected    5e-05" in text
    assert "got         4e-05   (max abs 1e-05, 9 ulp)" in text


def test_the_explanation_gives_the_cause_and_what_to_do(diverged):
    text = explanation(diverged)
    assert "RC404 lr-scheduler, confirmed: the learning-rate schedule is not restored" in text
    assert "Save and load the scheduler's state_dict." in text


def test_numbers_that_differ_are_printed_with_the_digits_that_show_it(diverged):
    row = next(line for line in explanation(diverged).splitlines() if line.lstrip("> ").startswith("6 "))
    assert "0.693147182 -> 0.693147242" in row
    assert "1.25" in row
    assert "1.25 ->" not in row


def test_steps_before_the_resume_point_show_the_uninterrupted_run_alone(diverged):
    row = next(line for line in explanation(diverged).splitlines() if line.strip().startswith("4 "))
    assert "->" not in row
    assert "5e-05" in row


def test_points_that_fail_alike_are_one_line_and_others_are_explained():
    other = Finding("RC204", "data-content", "suspected", "the same samples arrive with other content", "Key it.")
    verdict = make_verdict(
        "diverged", resume_point(3), resume_point(5), resume_point(7), resume_point(8, findings=(other,))
    )
    text = explanation(verdict)
    assert "likewise    resumed from 5, 7\n" in text
    assert "resumed from step 5:" not in text
    assert "resumed from step 8: the first difference" in text


def test_the_explanation_of_two_hundred_failed_points_fits_a_log():
    verdict = make_verdict("diverged", *(resume_point(step) for step in range(1, 201)))
    assert len(explanation(verdict).splitlines()) < 40


def test_no_line_of_prose_is_wider_than_a_log():
    finding = Finding("RC501", "hidden-state", "confirmed", "word " * 100, "advice " * 100)
    verdict = make_verdict("diverged", resume_point(4, findings=(finding,)), notes=("note " * 100,))
    assert max(map(len, explanation(verdict).splitlines())) <= WIDTH + 10


def test_what_was_not_checked_and_the_points_that_passed_are_said(diverged):
    text = explanation(diverged)
    assert "load_best_model_at_end is off" in text
    assert "equivalent  2\n" in text


def test_the_command_that_reproduces_names_the_first_failed_point(diverged):
    assert "resumecheck verify train.py:build --steps 12 --at 4" in explanation(diverged)
    assert "--tolerance ulp:4" in explanation(dataclasses.replace(diverged, tolerance="ulp:4"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(horizon="next"), "--at 4 --horizon next"),
        (Settings(interrupt="sigkill"), "--at 4 --interrupt sigkill"),
        (Settings(twice=True), "--at 4 --twice"),
        (
            Settings(on_resume={"dataloader_num_workers": "2", "seed": "1"}),
            "--at 4 --on-resume dataloader_num_workers=2 --on-resume seed=1",
        ),
        (Settings(), "--at 4"),
    ],
    ids=str,
)
def test_the_command_that_reproduces_has_every_option_of_the_check(diverged, settings, words):
    text = explanation(dataclasses.replace(diverged, settings=settings))
    assert text.endswith(f"reproduce   resumecheck verify train.py:build --steps 12 {words}")


def test_a_point_that_was_compared_up_to_the_next_is_repeated_with_the_next():
    verdict = make_verdict(
        "diverged", resume_point(4, horizon="next"), equivalent_point(9), settings=Settings(horizon="next")
    )
    assert "--at 4,9 --horizon next" in explanation(verdict)


@pytest.mark.parametrize(("checkpoint", "option"), [("checkpoint-{step}", ""), ("last.pt", "--checkpoint last.pt ")])
def test_the_check_of_a_command_is_repeated_by_its_command(diverged, checkpoint, option):
    words = ("python", "train.py", "--out", "{out}")
    settings = Settings(
        interrupt="sigkill", command=words, resume_option="--resume {checkpoint}", checkpoint=checkpoint
    )
    text = explanation(dataclasses.replace(diverged, target="python train.py --out {out}", settings=settings))
    assert text.endswith(
        "reproduce   resumecheck verify --at 4 --interrupt sigkill --resume-option '--resume {checkpoint}' "
        f"{option}-- python train.py --out {{out}}"
    )


def test_a_closure_has_no_command_and_a_test_gives_its_own(diverged):
    closure = dataclasses.replace(diverged, target="make.<locals>.build")
    assert "reproduce" not in explanation(closure)
    assert "reproduce   pytest --resumecheck test_it.py" in explanation(closure, "pytest --resumecheck test_it.py")


def test_state_that_came_back_different_without_effect_is_listed_once():
    latent = Finding("RC301", "rng-python", "suspected", "the stream came back different", "")
    verdict = make_verdict("equivalent", *(equivalent_point(step, latent=(latent,)) for step in (3, 6)))
    text = explanation(verdict)
    assert text.count("the stream came back different") == 1
    assert "(resumed from 3, 6)" in text


def test_how_far_a_resumed_run_went_is_said():
    rows = rendered(make_verdict("equivalent", equivalent_point(3, horizon="next"), equivalent_point(6))).splitlines()
    assert any(row.split()[:4] == ["3", "the", "next", "point"] for row in rows)
    assert any(row.split()[:3] == ["6", "the", "end"] for row in rows)


def test_neighbouring_resume_points_are_a_range():
    verdict = make_verdict("equivalent", *(equivalent_point(step) for step in (2, 5, 6, 7, 9)))
    assert "resumed from 2, 5-7, 9;" in explanation(verdict)


def test_a_nondeterministic_target_is_explained_by_its_cause(nondeterministic):
    text = explanation(nondeterministic)
    assert text.startswith("NONDETERMINISTIC  train.py:build: the uninterrupted run does not repeat itself")
    assert "RC602 nondeterminism" in text


def test_a_failed_target_is_explained_by_its_exception(failed):
    assert "  ValueError: no data\n  in train.py, line 7, in build" in explanation(failed)


def test_a_file_under_the_working_directory_is_named_from_there(diverged, tmp_path, monkeypatch):
    file = tmp_path / "train.py"
    file.touch()
    monkeypatch.chdir(tmp_path)
    assert explanation(dataclasses.replace(diverged, target=f"{file}:build")).startswith("DIVERGED  train.py:build: ")


def test_the_headline_is_one_line(verdict):
    assert headline(verdict).startswith(verdict.verdict)
    assert "\n" not in headline(verdict)


def test_the_headline_of_a_divergence_names_step_component_and_how_many(diverged):
    assert headline(diverged) == "diverged at step 5 in lr-scheduler, resumed from step 4 (2 of 3 resume points)"


def test_the_command_line_prints_a_row_for_each_resume_point(diverged):
    text = rendered(diverged)
    rows = [line for line in text.splitlines() if "the end" in line]
    assert [row.split()[0] for row in rows] == ["2", "4", "9"]
    assert "step 5, lr-scheduler" in rows[1]
    assert "RC404, confirmed" in rows[1]


def test_square_brackets_in_names_are_text_and_not_markup():
    finding = Finding("RC501", "hidden-state", "confirmed", "model.layers[bold].calls: expected 5, got 0", "Keep [it].")
    assert "model.layers[bold].calls" in rendered(make_verdict("diverged", resume_point(4, findings=(finding,))))


def test_every_outcome_is_rendered(verdict):
    assert rendered(verdict).startswith(verdict.verdict.upper())


def test_a_thousand_equivalent_points_are_a_short_report():
    verdict = make_verdict("equivalent", *(equivalent_point(step, horizon="next") for step in range(1, 1001)))
    assert len(rendered(verdict).splitlines()) < 10
