"""README.zh-CN.md says what README.md says: the same commands, code, names, links, tables and figures, part by part."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")

#: Each heading of README.md, in order -> that of README.zh-CN.md.
HEADINGS = {
    "# resumecheck": "# resumecheck",
    "## Install": "## 安装",
    "## In pytest": "## 在 pytest 中使用",
    "## On the command line": "## 在命令行中使用",
    "## How it is measured": "## 如何测量",
    "## The embedding trainer": "## 嵌入模型训练器",
    "## What is not checked": "## 没有检查的内容",
    "## Where things are": "## 代码在哪里",
}
#: The line at the top that leads to the other language.
OTHER_LANGUAGE = {"English | [简体中文](README.zh-CN.md)", "[English](README.md) | 简体中文"}

_FENCED = re.compile(r"^```.*?^```$", flags=re.DOTALL | re.MULTILINE)
#: What a part must have as often in both languages -> how it is found in the text.
KEPT = {
    "code": r"`[^`\n]+`",
    "links": r"\]\(([^)]+)\)",
    "figures": r"\d+\.\d+",
    "points of a list": r"^- ",
}


def headings(page):
    return re.findall(r"^#+ .*$", _FENCED.sub("", page), flags=re.MULTILINE)


def parts(page):
    """The paragraphs below each heading, without code blocks and the line that leads to the other language."""
    texts = re.split(r"^#+ .*$", _FENCED.sub("", page), flags=re.MULTILINE)[1:]
    blocks = [[block.strip() for block in text.split("\n\n")] for text in texts]
    return ["\n\n".join(block for block in each if block and block not in OTHER_LANGUAGE) for each in blocks]


def tables(part):
    """The rows of its tables: number of columns, and what is code in the first one."""
    rows = [line.strip().strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    return [(len(row), re.findall(r"`[^`]+`", row[0])) for row in rows]


def differences(english, chinese):
    """What the translation has not, or has too much, in words."""
    told = []
    if headings(english) != list(HEADINGS):
        told.append("README.md: its headings are not those of HEADINGS")
    if headings(chinese) != list(HEADINGS.values()):
        told.append("README.zh-CN.md: its headings are not those of HEADINGS")
    if _FENCED.findall(english) != _FENCED.findall(chinese):
        told.append("the blocks of commands and code differ")
    for heading, first, second in zip(HEADINGS, parts(english), parts(chinese), strict=False):
        paragraphs = [text.count("\n\n") for text in (first, second)]
        if paragraphs[0] != paragraphs[1]:
            told.append(f"{heading}: the number of paragraphs differs")
        if tables(first) != tables(second):
            told.append(f"{heading}: the tables differ")
        for what, pattern in KEPT.items():
            counts = [Counter(re.findall(pattern, text, flags=re.MULTILINE)) for text in (first, second)]
            if counts[0] != counts[1]:
                told.append(f"{heading}: {what}: missing {counts[0] - counts[1]}, too much {counts[1] - counts[0]}")
    return told


def test_the_chinese_readme_has_everything_that_the_english_has():
    assert differences(ENGLISH, CHINESE) == []


def test_each_readme_leads_to_the_other():
    assert ENGLISH.splitlines()[2] == "English | [简体中文](README.zh-CN.md)"
    assert CHINESE.splitlines()[2] == "[English](README.md) | 简体中文"


#: A change of README.md that its translation has not followed.
CHANGES = [
    ("$ make test ", "$ make check "),
    ("`--mrl_dims`", "`--mrl`"),
    ("(docs/m3.md)", "(docs/heads.md)"),
    ("0.5457", "0.5557"),
    ("## Install\n", "## Installing\n"),
    ("## Install\n", "### Install\n"),
    ("| 2 | |", "| 2 |"),
    ("- Steps that were not run.", "- Steps.\n- Steps that were not run."),
    ("To see it on a clean clone:", "A paragraph more.\n\nTo see it on a clean clone:"),
]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_a_change_of_the_english_readme_alone_is_told(before, after):
    assert before in ENGLISH
    assert differences(ENGLISH.replace(before, after, 1), CHINESE)
