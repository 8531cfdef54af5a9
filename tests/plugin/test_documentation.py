"""docs/plugin.md names every option, fixture and twin, as they are."""

import re
from pathlib import Path

import resumecheck.plugin
from resumecheck.options import PLUGIN

PAGE = (Path(__file__).parents[2] / "docs" / "plugin.md").read_text(encoding="utf-8")


def rows(heading):
    """The rows of the tables below a heading, without their heads."""
    section = re.split(rf"^## {heading}$", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    tables = re.findall(r"^\|(?: -+ \|)+\n((?:\|.*\n)+)", section, flags=re.MULTILINE)
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for table in tables for row in table.splitlines()
    ]


def test_the_table_of_options_is_the_list_of_options():
    expected = [
        [
            f"`{option.flag} {option.metavar}`".replace(" `", "`").replace("|", "\\|"),
            f"`{option.ini}`",
            f"`{option.name}=`" if option.name else "",
            option.help,
        ]
        for option in PLUGIN
    ]
    assert rows("Options") == expected


def test_each_fixture_is_in_the_table_of_fixtures():
    named = {cell[0].strip("`") for cell in rows("Fixtures")}
    assert set(resumecheck.plugin.FIXTURES) <= named


def test_each_exception_is_a_public_name():
    named = {cell[0].split("`")[1] for cell in rows("Fixtures")} - set(resumecheck.plugin.FIXTURES)
    assert named == {"ResumeDivergence", "TargetError", "ResumecheckError", "UsageError"}
    assert named <= set(resumecheck.__all__)


def test_help_has_the_options_with_the_words_of_the_page(pytester):
    shown = " ".join(pytester.runpytest("--help").stdout.str().split())
    for option in PLUGIN:
        assert option.flag in shown
        assert f"{option.ini} (" in shown
        assert " ".join(option.help.split()[:6]) in shown
