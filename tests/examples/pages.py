"""What a page shows, run: its files are written, its commands run in order, and what they print is compared.

In a page, a fenced block with a title is a file. In a `console` block a line that starts with `$ ` is a command, and
the lines below it are what it prints to its standard output; `...` alone on a line stands for lines left out. A
comment `<!-- before: COMMAND -->` is run and not shown; there, modules of this repository can be imported.

Not compared is what differs from machine to machine: digests, versions, numbers with a fraction or an exponent (losses,
durations), distances in ulp, sizes in bytes of the files of a checkpoint, white space, and with it where lines break.

    python tests/examples/pages.py docs/tutorial.md            run it, and say what differs
    python tests/examples/pages.py --write docs/tutorial.md    put what is printed in place of what differs
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300
LEFT_OUT = "..."

_BLOCK = re.compile(
    r"^```(?P<language>[\w-]+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$|^<!-- before: (?P<before>.*?) -->$",
    flags=re.DOTALL | re.MULTILINE,
)
_COMMAND = re.compile(r"^\$ (?P<line>(?:.*\\\n)*.*)\n(?P<shown>(?:(?!\$ ).*\n)*)", flags=re.MULTILINE)
#: What differs between machines -> what stands for it.
_VARIES = [
    (re.compile(r"#(?:words:)?[0-9a-f]{8,}"), "#"),
    (re.compile(r"\b\d+\.\d+\.\d+[\w.+]*"), "VERSION"),
    (re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?|\b\d+e[+-]\d+"), "0.0"),
    (re.compile(r"\b[\d,]+ ulp\b"), "0 ulp"),
    (re.compile(r" \(\d+:\d\d:\d\d\)"), ""),  # pytest writes durations above a minute twice
    (re.compile(r"\b\d+(?= +(?:whole|damaged|code|unread)\b)"), "0"),
]


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block, or a command that is not shown (`before`); `start` is where its text begins in the page."""

    language: str
    title: str | None
    text: str
    start: int


@dataclasses.dataclass(frozen=True)
class Ran:
    """A command of a page: what is shown below it, and what it printed (`told` on its standard error)."""

    line: str
    shown: str
    printed: str
    told: str
    start: int

    @property
    def true(self) -> bool:
        """Whether the page shows what was printed."""
        return alike(self.shown, self.printed)


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The blocks of a page, in order; those of one language where it is given."""
    found = [
        Block("before", None, block["before"], block.start("before"))
        if block["before"]
        else Block(block["language"], block["title"], block["text"], block.start("text"))
        for block in _BLOCK.finditer(page)
    ]
    return [block for block in found if language in (None, block.language)]


def commands(block: Block) -> list[tuple[str, str, int]]:
    """The commands of a console block: line, what is shown below it, where that begins in the page."""
    return [
        (found["line"], found["shown"], block.start + found.start("shown")) for found in _COMMAND.finditer(block.text)
    ]


def run(page: str, directory: Path) -> Iterator[Ran]:
    """Write the files of the page into the directory and run its commands there, from top to bottom."""
    status = 0
    for block in blocks(page):
        if block.title is not None:
            path = directory / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "before":
            done = run_command(block.text, directory, PYTHONPATH=str(ROOT))
            if done.returncode:
                raise RuntimeError(f"{block.text}\n{done.stderr}")
        elif block.language == "console":
            for line, shown, start in commands(block):
                done = run_command(f"(exit {status})\n{line}", directory)
                status = done.returncode
                yield Ran(line, shown, done.stdout.replace(str(directory), "/tmp"), done.stderr, start)


def run_command(line: str, directory: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a page in bash, with the commands of this environment and without a network."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "GITHUB", "PYTHONPATH"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    environment = {**kept, "PATH": path, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", **more}
    return subprocess.run(
        ["bash", "-c", line],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def alike(shown: str, printed: str) -> bool:
    """Whether the words are the same, but for those that differ between machines and for lines that are left out."""
    first, *later = [_words(part) for part in re.split(rf"^{re.escape(LEFT_OUT)}$", shown, flags=re.MULTILINE)]
    words = _words(printed)
    if not later:
        return words == first
    if words[: len(first)] != first:
        return False
    place = len(first)
    *middle, last = later
    for part in middle:
        starts = range(place, len(words) - len(part) + 1)
        at = next((start for start in starts if words[start : start + len(part)] == part), None)
        if at is None:
            return False
        place = at + len(part)
    return len(words) - len(last) >= place and words[len(words) - len(last) :] == last


def _words(text: str) -> list[str]:
    for varies, stand_in in _VARIES:
        text = varies.sub(stand_in, text)
    return text.split()


def main() -> int:
    """Run pages; 1 where one of them does not show what was printed."""
    parser = argparse.ArgumentParser(description="Run what pages show.")
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    parser.add_argument("--write", action="store_true", help="put what is printed in place of what differs")
    options = parser.parse_args()
    wrong = 0
    for path in options.pages:
        page = path.read_text(encoding="utf-8")
        ran = []
        with tempfile.TemporaryDirectory() as directory:
            for command in run(page, Path(directory)):
                ran.append(command)
                print(f"{path}: {'as shown' if command.true else 'DIFFERS '}  $ {command.line}", flush=True)
                if not command.true:
                    print(f"{command.printed}\n{command.told[-2000:]}", flush=True)
        for command in reversed([command for command in ran if not command.true]):
            wrong += 1
            printed = "".join(f"{line.rstrip()}\n" for line in command.printed.splitlines())
            page = f"{page[: command.start]}{printed}{page[command.start + len(command.shown) :]}"
        if options.write:
            path.write_text(page, encoding="utf-8")
    return 1 if wrong and not options.write else 0


if __name__ == "__main__":
    sys.exit(main())
