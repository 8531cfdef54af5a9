"""The README shows code that is run and output that was printed; the pages in docs/ name every field."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from resumecheck.report.junit import properties
from resumecheck.trajectory import Micro, Row
from resumecheck.verdict import Divergence, Finding, ResumePoint, Settings, Verdict

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def without_numbers(text):
    """Numbers, versions and digests differ between machines; words and their order must not."""
    text = re.sub(r"#[0-9a-f]+", "#", text)
    text = re.sub(r"\d[\d.e+-]*(\+cpu|\+cu\d+)?", "0", text)
    return re.sub(r"[ .]+", " ", re.sub(r"(0 )+", "0 ", text)).split()


def test_python_in_the_readme_is_in_the_examples():
    examples = [path.read_text(encoding="utf-8").strip() for path in Path(__file__).parent.glob("*.py")]
    assert blocks("python")
    for block in blocks("python"):
        assert block.strip() in examples


@pytest.mark.slow
def test_the_first_output_in_the_readme_is_what_is_printed():
    command, _, output = blocks("console")[0].partition("\n")
    words = command.removeprefix("$ resumecheck ").split()
    done = subprocess.run(
        [sys.executable, "-m", "resumecheck", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert without_numbers(done.stdout) == without_numbers(output)


def test_commands_in_the_readme_are_commands():
    known = subprocess.run([sys.executable, "-m", "resumecheck", "--help"], capture_output=True, text=True, check=True)
    for block in blocks("console"):
        for command in re.findall(r"^\$ resumecheck (\w+)", block, flags=re.MULTILINE):
            assert f"    {command} " in known.stdout


def test_options_in_the_readme_are_options():
    from resumecheck.options import SHARED

    for option in SHARED:
        assert f"--{option.name}" in README or f"-{option.name}" in README


def test_links_in_the_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_field_of_a_row_is_described():
    page = (ROOT / "docs" / "trajectory.md").read_text(encoding="utf-8")
    for fact in (Row, Micro):
        for field in dataclasses.fields(fact):
            assert f"`{field.name}`" in page


def test_every_member_of_the_verdict_is_described():
    page = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")
    for fact in (Verdict, ResumePoint, Divergence, Finding, Settings):
        for field in dataclasses.fields(fact):
            assert f"`{field.name}`" in page


def test_every_junit_property_is_described():
    page = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")
    divergence = Divergence(5, "loss", "weights", "loss", "", 1.0, 2.0)
    point = ResumePoint(4, "end", "diverged", divergence, (Finding("RC101", "weights", "confirmed", "", ""),))
    for name, _value in properties(Verdict("a:b", "diverged", "bitwise", 8, 20, True, (point,))):
        assert f"{name.removeprefix('resumecheck')}`" in page
