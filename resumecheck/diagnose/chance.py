"""Where chance comes in: the likely source of the difference between two uninterrupted runs."""

from __future__ import annotations

from pathlib import Path

from resumecheck.compare.differences import Difference
from resumecheck.diagnose.suspects import read_census
from resumecheck.runs.bench import Bench, Experiment, Run

#: At most this many places are named.
MOST_PLACES = 3

#: How the census begins its entry of a private random generator.
_GENERATORS = ("Random ", "Generator ", "RandomState ")


def likely_source(bench: Bench, experiment: Experiment, reference: Run, again: Run, root: Difference) -> str:
    """The likely source in words; what is nearest to the difference first.

    Args:
        bench: makes the run that watches the kernels, where nothing else is found.
        experiment: what is checked.
        reference: an uninterrupted run.
        again: another one, under the same hash seed.
        root: the first difference between them.
    """
    moving = _moving_stream(reference, again, root.step) or _moving_stream(reference, again, root.step + 1)
    stream = root.component if root.rung == "random-streams" else moving
    if stream is not None:
        return f"the stream {stream} is drawn from before it is seeded, or is never seeded"
    if root.rung == "state-after-loading" and root.component in ("weights", "loss-parameters"):
        return "what is made before a seed is set: call transformers.set_seed before the model is made"
    generators, others = _places(reference.directory, again.directory)
    if generators:
        return f"a generator without a seed: {', '.join(generators[:MOST_PLACES])}"
    if others:
        return f"what training holds differs from its start on: {'; '.join(others[:MOST_PLACES])}"
    watched = bench.reference(experiment, repeat=3, watch_kernels=True)
    kernels = watched.facts.get("kernels_without_determinism", [])
    if kernels:
        return (
            f"kernels that torch has no deterministic version of: {', '.join(kernels[:MOST_PLACES])} (as "
            "torch.use_deterministic_algorithms tells)"
        )
    threads = watched.facts.get("threads", 1)
    if threads > 1:
        return f"{threads} threads, which add up in another order each time; set torch.set_num_threads(1)"
    if root.component.startswith("data-"):
        return "the data set or the collator takes something from outside: time, the operating system, a directory"
    return "not among generators, streams, kernels and threads; it may be the time or something outside the process"


def _moving_stream(reference: Run, again: Run, step: int) -> str | None:
    """A stream that has been drawn from or seeded since training began, and differs before the step."""
    pair = [run.trajectory.rows.get(step) for run in (reference, again)]
    first = reference.trajectory.rows.get(reference.trajectory.first_step + 1)
    if pair[0] is None or pair[1] is None or first is None:
        return None
    for name, text in pair[0].streams.items():
        if text not in (first.streams.get(name), pair[1].streams.get(name)):
            return name
    return None


def _places(reference: Path, again: Path) -> tuple[list[str], list[str]]:
    """Paths of the census at the start that differ: private generators, and others in words."""
    censuses = [read_census(directory, "start") for directory in (reference, again)]
    library = {*censuses[0].get("library", ()), *censuses[1].get("library", ())}
    generators: list[str] = []
    others: list[str] = []
    for path, text in censuses[0]["entries"].items():
        other = censuses[1]["entries"].get(path)
        if other == text or path in library:
            continue
        if text.startswith(_GENERATORS):
            generators.append(path)
        else:
            others.append(f"{path}: {text.removeprefix('=')}, then {(other or 'nothing').removeprefix('=')}")
    return generators, others
