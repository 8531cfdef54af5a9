"""A diagnosis as text: what is there, what is missing, what a resume would lose, and how to resume."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from resumecheck.checkpoints.diagnosis import Checkpoint, Diagnosis

WIDTH = 110
LISTED_FILES = 40
LISTED_PROBLEMS = 20


def printable(text: str) -> str:
    """Text of a file or its name without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in text)


def render(diagnosis: Diagnosis, console: Console) -> None:
    """Print a diagnosis for a person."""
    from rich.text import Text

    colour = "green" if diagnosis.whole else "red"
    title = Text.assemble(
        (_headline(diagnosis), f"bold {colour}"), f"  {printable(diagnosis.path)}: {_what(diagnosis)}"
    )
    console.print(title, soft_wrap=True)
    several = diagnosis.kind == "output directory"
    if several:
        console.print(_table_of_checkpoints(diagnosis))
    for checkpoint in _shown(diagnosis):
        if several:
            console.print(Text(f"\n{printable(Path(checkpoint.path).name)}", style="bold"), soft_wrap=True)
        console.print(_table_of_files(checkpoint))
        for line in _details(checkpoint):
            console.print(Text(line), soft_wrap=True)
    for line in _advice(diagnosis):
        console.print(Text(line), soft_wrap=True)


def _headline(diagnosis: Diagnosis) -> str:
    if diagnosis.whole:
        return "WHOLE"
    return "NOT WHOLE" if diagnosis.checkpoints and diagnosis.kind != "model" else "NO CHECKPOINT"


def _what(diagnosis: Diagnosis) -> str:
    if diagnosis.kind == "checkpoint":
        step = diagnosis.checkpoints[0].step
        return f"a checkpoint of {diagnosis.framework}" + (f", step {step}" if step is not None else "")
    if diagnosis.kind == "output directory":
        whole = sum(checkpoint.whole for checkpoint in diagnosis.checkpoints)
        return (
            f"an output directory of {diagnosis.framework}, {whole} of {len(diagnosis.checkpoints)} checkpoints whole"
        )
    return "weights without training state" if diagnosis.kind == "model" else "nothing that is known here"


def _shown(diagnosis: Diagnosis) -> list[Checkpoint]:
    """Of an output directory, the newest, and the newest that is whole."""
    if diagnosis.kind != "output directory":
        return list(diagnosis.checkpoints)
    shown = [each for each in diagnosis.checkpoints if each.path == diagnosis.newest_whole]
    newest = diagnosis.checkpoints[-1]
    return shown if newest in shown else [*shown, newest]


def _table_of_checkpoints(diagnosis: Diagnosis) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2))
    for column in ("checkpoint", "step", "state", "what is wrong"):
        table.add_column(column, overflow="fold", justify="left")
    for checkpoint in diagnosis.checkpoints[-LISTED_FILES:]:
        newest = " (newest whole)" if checkpoint.path == diagnosis.newest_whole else ""
        others = f" (and {len(checkpoint.problems) - 1} more)" if len(checkpoint.problems) > 1 else ""
        wrong = checkpoint.problems[0].message + others if checkpoint.problems else ""
        table.add_row(
            Text(printable(Path(checkpoint.path).name)),
            "" if checkpoint.step is None else str(checkpoint.step),
            Text("whole" + newest if checkpoint.whole else "not whole", style="green" if checkpoint.whole else "red"),
            Text(printable(wrong)),
        )
    return table


def _table_of_files(checkpoint: Checkpoint) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2))
    for column in ("file", "bytes", "state", "what it holds"):
        table.add_column(column, overflow="fold", justify="right" if column == "bytes" else "left")
    for file in checkpoint.files[:LISTED_FILES]:
        style = "red" if file.state in ("damaged", "code") else ""
        table.add_row(Text(printable(file.name)), str(file.size), Text(file.state, style=style), Text(file.what))
    if len(checkpoint.files) > LISTED_FILES:
        table.add_row(f"and {len(checkpoint.files) - LISTED_FILES} more", "", "", "")
    return table


def _details(checkpoint: Checkpoint) -> Iterator[str]:
    if checkpoint.steps:
        yield ""
        found = ", ".join(f"{printable(where)} {step}" for where, step in checkpoint.steps.items())
        yield from wrapped("step counts", found)
    if checkpoint.problems:
        yield ""
        yield "  missing or damaged"
        for problem in checkpoint.problems[:LISTED_PROBLEMS]:
            yield from _item(problem.message)
        if len(checkpoint.problems) > LISTED_PROBLEMS:
            yield from _item(f"and {len(checkpoint.problems) - LISTED_PROBLEMS} more")
    if checkpoint.losses:
        yield ""
        yield "  what a resume would lose"
        told: dict[tuple[str, bool, str], list[str]] = {}
        for loss in checkpoint.losses:
            told.setdefault((loss.cause, loss.silent, loss.why), []).append(loss.component)
        for (cause, silent, why), components in told.items():
            yield from _item(f"{', '.join(components)} ({cause}, {'silently' if silent else 'with an error'}): {why}")
    for remark in checkpoint.remarks:
        yield ""
        yield from wrapped("note", remark)


def _advice(diagnosis: Diagnosis) -> Iterator[str]:
    for remark in diagnosis.remarks:
        yield ""
        yield from wrapped("note", remark)
    yield ""
    first, *others = diagnosis.resume.splitlines()
    yield f"  to resume     {printable(first)}"
    for line in others:
        yield from wrapped("", line)


def wrapped(label: str, text: str) -> Iterator[str]:
    """A labelled paragraph, safe for a terminal."""
    indent = f"  {label:<14}"
    yield from textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _item(text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent="    - ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )
