"""The text to file upstream: what was expected and observed, the finding, versions, and how to see it, in Markdown."""

from __future__ import annotations

import dataclasses
import platform
import textwrap
from collections.abc import Iterator, Mapping

from resumecheck.report.terminal import window_lines
from resumecheck.report.wording import as_pair, distance, shortened, what_differs
from resumecheck.repro.bundle import Bundle
from resumecheck.repro.failure import Failure, Recipe, failed_point, root_finding
from resumecheck.repro.script import requirements
from resumecheck.state.components import RUNGS
from resumecheck.verdict import Divergence, Finding, Verdict

#: GitHub takes 65,536 characters; a longer script is to be attached.
LONGEST_SCRIPT = 50_000

_TITLES = {
    "diverged": "A resumed training run is not the same run: {component} ({code})",
    "nondeterministic": "Training does not repeat itself, so a resume cannot be judged ({code})",
}


@dataclasses.dataclass(frozen=True)
class Story:
    """What there is to tell.

    Attributes:
        report: the report that was given.
        whole: the recipe of its check.
        recipe: the smallest that fails in the same way.
        verdict: what the check of that found.
        failure: what both fail with.
        bundle: the target that the script holds.
        packages: what the script needs -> version.
        differences: package -> its version in the report, where another is here.
        checks: how many checks the reduction made.
        ended: whether it ended by itself, and not since no check was left.
    """

    report: Verdict
    whole: Recipe
    recipe: Recipe
    verdict: Verdict
    failure: Failure
    bundle: Bundle
    packages: Mapping[str, str]
    differences: Mapping[str, tuple[str, str]]
    checks: int
    ended: bool


def summary(failure: Failure, verdict: Verdict) -> str:
    """The failure in a sentence, and its finding in a paragraph."""
    title = _TITLES[failure.verdict].format(component=failure.component, code=failure.code)
    found = root_finding(verdict)
    return f"{title}.\n\n{textwrap.fill(found.message, 110)}" if found is not None else f"{title}."


def issue(story: Story, script: str) -> str:
    """The text of the issue."""
    return "\n".join(_issue(story, script)) + "\n"


def _issue(story: Story, script: str) -> Iterator[str]:
    failure, verdict, found = story.failure, story.verdict, root_finding(story.verdict)
    point = failed_point(verdict)
    yield f"# {_TITLES[failure.verdict].format(component=failure.component, code=failure.code)}"
    yield ""
    yield (
        "`repro.py` below holds the whole target and needs no other file:"
        if not story.bundle.outside
        else ("`repro.py` below holds the source of the target; the files that it does not hold are listed below:")
    )
    yield ""
    yield from fenced(
        f"pip install {requirements(story.packages)}\npython repro.py   # exit status 1; 0 once mended", "sh"
    )
    yield ""
    yield "## Expected"
    yield ""
    yield _expected(story)
    yield ""
    yield "## Observed"
    yield ""
    if point is not None and point.first_divergence is not None:
        yield from fenced("\n".join(_observed(point.first_divergence)))
        if point.window:
            yield ""
            yield from fenced("\n".join(window_lines(point.window)))
    elif found is not None:
        yield from fenced(found.message)
    yield ""
    yield "## Finding"
    yield ""
    if found is not None:
        yield from _finding(found)
    yield ""
    yield "## How the check was made"
    yield ""
    yield from _made(story)
    yield ""
    yield "## Versions"
    yield ""
    yield from _versions(story)
    yield ""
    yield "## repro.py"
    yield ""
    if len(script) > LONGEST_SCRIPT:
        yield f"Attached: it has {len(script):,} characters."
    else:
        yield "<details><summary>the script</summary>"
        yield ""
        yield from fenced(script.rstrip("\n"), "python")
        yield ""
        yield "</details>"


def _expected(story: Story) -> str:
    if story.failure.verdict == "nondeterministic":
        return "Two uninterrupted runs with the same arguments, in fresh processes, make the same steps."
    tolerance = "bit for bit" if story.recipe.tolerance == "bitwise" else f"within {story.recipe.tolerance}"
    again = ", then interrupted and resumed again," if story.recipe.twice else ""
    return (
        f"A run that is resumed in a fresh process from the checkpoint of step {story.recipe.at}{again} goes on like "
        f"the run that was not interrupted, {tolerance}."
    )


def _observed(divergence: Divergence) -> Iterator[str]:
    rung = RUNGS.get(divergence.rung)
    expected, got = as_pair(divergence.expected, divergence.got)
    apart = distance(divergence)
    yield f"first difference   step {divergence.step}, {divergence.rung}{f': {rung}' if rung else ''}"
    yield f"what               {what_differs(divergence)}"
    yield f"expected           {shortened(expected, 100)}"
    yield f"got                {shortened(got, 100)}{f'   ({apart})' if apart else ''}"


def _finding(found: Finding) -> Iterator[str]:
    status = (
        "confirmed: with this state put back from the uninterrupted run, the difference is gone"
        if found.status == "confirmed" and found.component not in ("nondeterminism", "saving", "resume-failure")
        else found.status
    )
    yield f"**{found.code} {found.component}** ({status})"
    yield ""
    yield from fenced(found.message)
    if found.advice:
        yield ""
        yield found.advice


def _made(story: Story) -> Iterator[str]:
    whole, recipe = story.whole, story.recipe
    until = "" if story.ended else " (no more were allowed)"
    yield (
        "resumecheck trains the target uninterrupted, again with a checkpoint, and resumed from that checkpoint, each "
        f"in a process of its own, and compares step by step. {story.checks} checks were made{until}; the smallest "
        "that fails in this way is:"
    )
    yield ""
    yield "| | whole | smallest |"
    yield "| --- | --- | --- |"
    yield f"| steps | {whole.steps} | {recipe.steps} |"
    yield f"| resumed from step | {whole.at} | {recipe.at} |"
    for name in ("tolerance", "interrupt", "twice"):
        before, after = getattr(whole, name), getattr(recipe, name)
        if before != after or before not in ("bitwise", "stop", False):
            yield f"| {name} | {_value(before)} | {_value(after)} |"
    for key, value in whole.on_resume:
        yield f"| changed on resume | {key}={value} | {'likewise' if (key, value) in recipe.on_resume else 'not'} |"
    for name, value in (*recipe.options, *recipe.arguments):
        yield f"| `{name}` | the target's own | `{value!r}` |"


def _value(value: object) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _versions(story: Story) -> Iterator[str]:
    versions = {**story.verdict.versions, **story.packages}
    yield ", ".join(f"{name} {version}" for name, version in versions.items()) + f"; {platform.platform()}"
    if story.differences:
        told = ", ".join(f"{name} {before}" for name, (before, _here) in story.differences.items())
        yield ""
        yield f"The first report of it was made with {told}."
    others = sorted({each.code for each in _other_findings(story.report, story.failure)})
    if others:
        yield ""
        yield f"That report has other findings too, which this is not about: {', '.join(others)}."
    if story.bundle.installed:
        yield ""
        yield f"The factory is `{story.bundle.target}`, in an installed package."
    if story.bundle.outside:
        yield ""
        yield "Files that the target reads and that `repro.py` does not hold:"
        yield ""
        yield from (f"- `{path}`" for path in story.bundle.outside)


def _other_findings(report: Verdict, failure: Failure) -> Iterator[Finding]:
    for point in report.resume_points:
        for found in point.findings:
            if (found.code, found.component) != (failure.code, failure.component):
                yield found


def fenced(text: str, language: str = "text") -> Iterator[str]:
    """A block of text; the fence is longer than any that the text has."""
    longest = max((len(run) for run in _runs_of(text, "`")), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"{fence}{language}"
    yield text
    yield fence


def _runs_of(text: str, character: str) -> Iterator[str]:
    run = ""
    for each in text:
        run = run + each if each == character else ""
        if run:
            yield run
