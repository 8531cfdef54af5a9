"""The README shows code that is run and output that was printed; the pages in docs/ name every field."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pages
import pytest

from resumecheck.production.result import EXIT_STATUS, Audit, Resume, Segment
from resumecheck.report.junit import properties
from resumecheck.trajectory import Micro, Row
from resumecheck.verdict import Divergence, Finding, ResumePoint, Settings, Verdict

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_in_the_readme_is_in_the_examples():
    examples = [path.read_text(encoding="utf-8").strip() for path in Path(__file__).parent.glob("*.py")]
    assert pages.blocks(README, "python")
    for block in pages.blocks(README, "python"):
        assert block.text.strip() in examples


@pytest.mark.slow
def test_the_first_output_in_the_readme_is_what_is_printed():
    ((command, shown, _start),) = pages.commands(pages.blocks(README, "console")[0])
    done = pages.run_command(command, ROOT)
    assert done.returncode == 1, done.stderr
    assert pages.alike(shown, done.stdout), done.stdout


@pytest.mark.slow
def test_the_tutorial_shows_what_its_commands_print(tmp_path):
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    ran = list(pages.run(tutorial, tmp_path))
    assert len(ran) >= 5
    for command in ran:
        assert command.true, f"$ {command.line}\n{command.printed}\n{command.told}"


@pytest.mark.slow
def test_the_page_of_the_audit_shows_what_its_commands_print(tmp_path):
    # Plain Trainers in fresh processes: one that that is killed, resumed exactly, and resumed without its optimizer.
    ran = list(pages.run((ROOT / "docs" / "audit.md").read_text(encoding="utf-8"), tmp_path))
    assert len(ran) == 4
    for command in ran:
        assert command.true, f"$ {command.line}\n{command.printed}\n{command.told}"


def test_every_member_of_an_audit_is_described():
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    for fact in (Audit, Resume, Segment):
        for field in dataclasses.fields(fact):
            assert f"`{field.name}`" in page
    for outcome, status in EXIT_STATUS.items():
        assert re.search(rf"^\| `{outcome}` \| .* \| {status} \|$", page, flags=re.MULTILINE)


#: What is shown, what is printed, and whether that is the same but for what differs between machines.
SHOWN = [
    ("loss 0.69 -> 0.70\n", "loss  0.691 -> 0.7012\n", True),
    ("dict#7fe45cf9803aab53\n", "dict#751f5cad167514db\n", True),
    ("torch 2.13.0+cpu; 8 steps\n", "torch 2.14.1; 8 steps\n", True),
    ("torch 2.13.0+cpu; 8 steps\n", "torch 2.14.1; 9 steps\n", False),
    ("0.000733, 12,296 ulp\n", "0.000734, 997 ulp\n", True),
    ("model.safetensors  92000  whole  the weights\n", "model.safetensors  92008  whole  the weights\n", True),
    ("model.safetensors  92000  whole  the weights\n", "model.safetensors  92000  damaged  the weights\n", False),
    ("checkpoint-4  4  whole\n", "checkpoint-4  4  whole     \n", True),
    ("EQUIVALENT  a\n", "DIVERGED  a\n", False),
    ("first\n...\nlast\n", "first\none\ntwo\nlast\n", True),
    ("first\n...\nlast\n", "first\nlast\nmore\n", False),
    ("first\n...\none\n...\n", "first\ntwo\n", False),
    ("first\n...\none\n...\ntwo\n", "first\ntwo\none\n", False),
    ("", "something\n", False),
]


@pytest.mark.parametrize(("shown", "printed", "same"), SHOWN)
def test_what_is_shown_is_compared_but_for_what_differs_between_machines(shown, printed, same):
    assert pages.alike(shown, printed) is same


PAGE = """
```python title="say.py"
print("one", 2)
```

<!-- before: echo hidden > made.txt -->

```console
$ python say.py
one 2
$ cat made.txt \\
    say.py
hidden
...
$ false
$ echo $?
1
```
"""


@pytest.mark.parametrize(("shown", "same"), [("one 2", True), ("one 3", False)])
def test_a_page_is_run_from_top_to_bottom(shown, same, tmp_path):
    ran = list(pages.run(PAGE.replace("$ python say.py\none 2", f"$ python say.py\n{shown}"), tmp_path))
    assert [command.true for command in ran] == [same, True, True, True]


def test_commands_in_the_pages_are_commands():
    known = subprocess.run([sys.executable, "-m", "resumecheck", "--help"], capture_output=True, text=True, check=True)
    for page in (README, *(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))):
        for block in pages.blocks(page, "console"):
            for command in re.findall(r"^\$ resumecheck (\w+)", block.text, flags=re.MULTILINE):
                assert f"    {command} " in known.stdout


def test_python_in_the_pages_is_python():
    for page in (ROOT / "docs").rglob("*.md"):
        for block in pages.blocks(page.read_text(encoding="utf-8"), "python"):
            if block.title is not None:  # others may be parts of something
                compile(block.text, f"{page.name}: {block.title}", "exec")


def test_options_in_the_readme_are_options():
    from resumecheck.options import SHARED

    for option in SHARED:
        assert f"--{option.name}" in README or f"-{option.name}" in README


def test_links_in_the_pages_lead_somewhere():
    for page in [*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")]:
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
