import io
import threading

from rich.console import Console

from resumecheck.report.progress import SECONDS_BETWEEN_LINES, PlainLines, progress_display


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_log_gets_the_start_the_end_and_a_line_now_and_then():
    file, clock = io.StringIO(), Clock()
    show = PlainLines(file, clock)
    for step in range(1, 101):
        clock.now += SECONDS_BETWEEN_LINES / 40
        show("reference", step, 100)
    show("reference", 100, 100)
    lines = file.getvalue().splitlines()
    assert lines == [f"resumecheck: reference: step {step} of 100" for step in (1, 41, 81, 100)]


def test_runs_that_train_side_by_side_have_lines_of_their_own():
    file = io.StringIO()
    show = PlainLines(file, Clock())
    show("reference", 0, 8)
    show("source", 0, 8)
    assert file.getvalue().splitlines() == ["resumecheck: reference: step 0 of 8", "resumecheck: source: step 0 of 8"]


def test_a_run_of_unknown_length_has_no_total():
    file = io.StringIO()
    PlainLines(file, Clock())("reference", 3, 0)
    assert file.getvalue() == "resumecheck: reference: step 3\n"


def test_what_is_no_terminal_gets_plain_lines():
    console = Console(file=io.StringIO(), force_terminal=False)
    with progress_display(console) as show:
        show("reference", 1, 2)
    assert console.file.getvalue() == "resumecheck: reference: step 1 of 2\n"


def test_a_terminal_gets_a_bar_for_each_run_from_any_thread():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress_display(console) as show:
        threads = [threading.Thread(target=show, args=(f"resumed from {step}", step, 9)) for step in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        show("reference", 3, 0)
    assert "resumed from 4" in console.file.getvalue()
