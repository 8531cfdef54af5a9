"""A comparison as text: equal or not, the first difference, a table of all, and the steps around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from resumecheck.report.doctor_text import printable, wrapped
from resumecheck.report.terminal import window_lines
from resumecheck.state.components import COMPONENTS, RUNGS

if TYPE_CHECKING:
    from rich.console import Console

    from resumecheck.comparison import Comparison
    from resumecheck.verdict import Divergence

WIDTH = 110


def render(comparison: Comparison, console: Console) -> None:
    """Print a comparison for a person."""
    from rich.text import Text

    word, colour = ("EQUAL", "green") if comparison.equal else ("DIFFERENT", "red")
    names = f"  {printable(comparison.expected)}  and  {printable(comparison.got)}"
    console.print(Text.assemble((word, f"bold {colour}"), names), soft_wrap=True)
    what = "steps" if comparison.kind == "trajectories" else "values"
    console.print(Text(f"  {comparison.compared} {what} compared; tolerance {comparison.tolerance}", style="dim"))
    if comparison.first_divergence is not None:
        for line in _first(comparison):
            console.print(Text(line), soft_wrap=True)
    if len(comparison.differences) > 1:
        console.print("")
        console.print(
            _by_rung(comparison) if comparison.kind == "trajectories" else _by_component(comparison.differences)
        )
    if comparison.without_effect:
        console.print("\n  what differs and is no state that a step reads")
        console.print(_by_component(comparison.without_effect))
    if comparison.window:
        console.print("")
        for line in window_lines(comparison.window, "first -> second"):
            console.print(Text(line), soft_wrap=True)
    for note in comparison.notes:
        console.print("")
        for line in wrapped("note", note):
            console.print(Text(line), soft_wrap=True)


def _first(comparison: Comparison) -> Iterator[str]:
    first = comparison.first_divergence
    assert first is not None
    yield ""
    if comparison.kind == "trajectories":
        yield from wrapped("where", f"step {first.step}, {first.rung}: {RUNGS[first.rung]}")
    else:
        yield from wrapped("where", f"the checkpoint of step {first.step}")
    yield from wrapped("what", f"{_named(first)} ({first.component}: {COMPONENTS[first.component]})")
    yield from wrapped("expected", _shown(first.expected))
    yield from wrapped("got", _shown(first.got))
    if first.max_abs is not None:
        yield from wrapped("apart", _apart(first))


def _by_rung(comparison: Comparison) -> object:
    """What differs at the first step that does."""
    assert comparison.first_divergence is not None
    step = comparison.first_divergence.step
    rows = [
        (each.rung, each.component, _named(each), _apart(each)) for each in comparison.differences if each.step == step
    ]
    return _table((f"at step {step}", "component", "first value", "apart"), rows)


def _by_component(found: tuple[Divergence, ...]) -> object:
    groups: dict[str, list[Divergence]] = {}
    for each in found:
        groups.setdefault(each.component, []).append(each)
    rows = []
    for component, inside in groups.items():
        largest = max(inside, key=lambda each: each.max_abs if each.max_abs is not None else -1.0)
        values = "" if largest.max_abs is not None else f"{_shown(largest.expected)} -> {_shown(largest.got)}"
        rows.append((component, str(len(inside)), _named(largest), values or _apart(largest)))
    return _table(("component", "values", "the one furthest apart", "apart"), rows)


def _named(each: Divergence) -> str:
    return f"{each.quantity} {each.name}".strip()


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _apart(divergence: Divergence) -> str:
    if divergence.max_abs is None:
        return ""
    ulp = f", {divergence.max_ulp} ulp" if divergence.max_ulp is not None else ""
    return f"{divergence.max_abs:.3g}{ulp}"


def _shown(value: Any) -> str:
    text = f"{value!r}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
