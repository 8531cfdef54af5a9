"""Real reports in a real browser: seen, read, tabbed through, and without a script."""

import os
import re
import shutil

import pytest

from resumecheck.report import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make env")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (Debian: apt-get install chromium)"),
]

THEMES = ("light", "dark")


@pytest.fixture(scope="module")
def browser():
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


@pytest.fixture(scope="module")
def reports(mutant, twin, tmp_path_factory):
    """Files of the reports by name; `both` has the two checks on one page."""
    directory = tmp_path_factory.mktemp("reports")
    for name, checks in {"mutant": [mutant], "twin": [twin], "both": [mutant, twin]}.items():
        page.write(checks, directory / f"{name}.html", "--html")
    return directory


@pytest.fixture
def open_report(browser, reports):
    """Opens a report; at the end of the test the browser must have had nothing to say."""
    contexts, said = [], []

    def open_it(name, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        opened = context.new_page()
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
        opened.goto((reports / f"{name}.html").as_uri())
        return opened

    yield open_it
    for context in contexts:
        context.close()
    assert said == []


def colour(element, name):
    return element.evaluate(f"element => getComputedStyle(element).{name}")


def rgb(text):
    return [int(number) for number in re.findall(r"\d+", text)[:3]]


def brightness(element, name):
    return sum(rgb(colour(element, name)))


@pytest.mark.parametrize(
    ("name", "theme"), [("mutant", "light"), ("mutant", "dark"), ("twin", "light"), ("twin", "dark"), ("both", "light")]
)
def test_axe_finds_nothing_with_everything_unfolded(open_report, name, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: make env")
    report = open_report(name, color_scheme=theme)
    report.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = axe.Axe().run(report)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("theme", THEMES)
def test_the_divergence_is_seen_in_the_timeline_the_curves_and_the_text(open_report, theme):
    report = open_report("mutant", color_scheme=theme)
    assert report.locator("h1").inner_text().startswith("Diverged")
    for place in ("path.cross", "line.run.apart", ".stems.run-1", "td.apart"):
        visible = report.locator(f"article section {place}").first
        assert visible.bounding_box()["height" if "line" not in place else "width"] >= 10, place
    red, green, blue = rgb(colour(report.locator("section path.cross").first, "stroke"))
    assert red > 1.5 * max(green, blue)
    assert "first differs at step 5" in report.locator("figure", has_text="Learning rate").inner_text()


def test_a_clean_run_shows_no_mark_of_a_difference(open_report):
    report = open_report("twin")
    assert report.locator("h1").inner_text().startswith("Equivalent")
    # What is left is the key to the marks.
    assert report.locator(":is(.cross, .run.apart, .stems, td.apart):not(.legend *)").count() == 0
    assert report.get_by_text("equal at all 8 steps").count() == 3


def test_the_two_themes_differ_and_both_can_be_read(open_report):
    pages = [open_report("mutant", color_scheme=theme).locator("html") for theme in THEMES]
    paper, ink = ([brightness(each, name) for each in pages] for name in ("backgroundColor", "color"))
    assert paper[0] > 700 > 150 > ink[0]
    assert paper[1] < 100 < 600 < ink[1]


def test_all_of_the_text_and_the_pictures_are_there_without_a_script(open_report):
    pages = [open_report("mutant", java_script_enabled=enabled) for enabled in (True, False)]
    texts = [each.locator("main").inner_text() for each in pages]
    assert texts[0] == texts[1]
    for said in ("RC404", "What to do", "Resumed from step 4", "Not checked, or overridden", "Run it again"):
        assert said in texts[1]
    report = pages[1]
    assert report.locator("svg[role=img]").count() == 4
    report.locator("summary").first.click()
    assert report.locator("table.numbers").first.is_visible()


def test_tab_goes_through_the_page_from_top_to_bottom_and_is_seen(open_report):
    report = open_report("mutant")
    places, names = [], []
    while True:
        report.keyboard.press("Tab")
        focused = report.locator(":focus")
        if focused.count() == 0 or (names and focused.inner_text() == names[0]):
            break
        assert colour(focused, "outlineStyle") == "solid", focused.evaluate("element => element.outerHTML")[:100]
        places.append(focused.evaluate("element => element.getBoundingClientRect().top + scrollY"))
        names.append(focused.inner_text().split("\n")[0])
    assert names[:3] == ["Skip to the report", "Cause", "Experiment"]
    assert places[1:] == sorted(places[1:])
    assert len(places) > 20
    assert "Training arguments of the reference run" in names


def test_a_fold_is_opened_and_a_section_is_reached_by_the_keyboard(open_report):
    report = open_report("mutant")
    fold = report.locator("details", has_text="Loss, step by step").first
    fold.locator("summary").focus()
    report.keyboard.press("Enter")
    playwright.expect(fold).to_have_attribute("open", "")
    report.get_by_role("link", name="Environment").focus()
    report.keyboard.press("Enter")
    playwright.expect(report).to_have_url(re.compile("#c1-environment$"))
    report.wait_for_function("document.querySelector('#c1-environment').getBoundingClientRect().top < 400")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(open_report, width):
    report = open_report("both", viewport={"width": width, "height": 800})
    report.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert report.evaluate("document.documentElement.scrollWidth") == width


def test_on_paper_nothing_is_cut_off(open_report):
    report = open_report("mutant")
    report.emulate_media(media="print")
    assert not report.locator("nav.sections").is_visible()
    assert report.pdf(format="A4")[:4] == b"%PDF"
