"""Makes a failing check smaller: each step is kept only where a real check still fails with the same root cause."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resumecheck.errors import ResumecheckError
from resumecheck.repro.bundle import Bundle, make_smaller
from resumecheck.repro.failure import Failure, Recipe, failure_of, first_step
from resumecheck.repro.sources import read_sources

if TYPE_CHECKING:
    from resumecheck.check import Workbench
    from resumecheck.verdict import Verdict

Change = Callable[[Recipe], Recipe]
Tell = Callable[[str], None]

#: What a target may do without -> the training arguments that say so, of which the first tells whether it does.
SIMPLER_ARGUMENTS: dict[str, dict[str, Any]] = {
    "no loader workers": {
        "dataloader_num_workers": 0,
        "dataloader_persistent_workers": False,
        "dataloader_prefetch_factor": None,
    },
    "no gradient accumulation": {"gradient_accumulation_steps": 1},
    "no evaluation": {"eval_strategy": "no", "eval_on_start": False, "load_best_model_at_end": False},
    "no saving of its own": {"save_strategy": "no", "load_best_model_at_end": False},
    "no logging": {"logging_strategy": "no"},
    "no bfloat16": {"bf16": False},
    "no float16": {"fp16": False},
    "no gradient checkpointing": {"gradient_checkpointing": False},
    "no torch.compile": {"torch_compile": False},
    "no noise in embeddings": {"neftune_noise_alpha": None},
    "no label smoothing": {"label_smoothing_factor": 0.0},
}


@dataclasses.dataclass
class Trials:
    """The checks of a reduction: they are counted, and none is made twice.

    Attributes:
        workbench: makes the runs.
        bundle: the copy of the target, laid out in `directory`.
        directory: where.
        failure: what a check has to fail with.
        limit: how many checks may be made.
        tell: is told of each check.
        made: how many were made.
        verdicts: recipe -> what its check found, None where it did not fail likewise.
        last: what the last check came to, in words.
    """

    workbench: Workbench
    bundle: Bundle
    directory: Path
    failure: Failure
    limit: int
    tell: Tell
    made: int = 0
    verdicts: dict[Recipe, Verdict | None] = dataclasses.field(default_factory=dict)
    last: str = ""

    def fails(self, recipe: Recipe, what: str) -> bool:
        """Whether the target fails in the same way in this check; False where no check is left."""
        if recipe not in self.verdicts:
            if self.made >= self.limit:
                return False
            self.verdicts[recipe] = self._check(recipe, what)
        return self.verdicts[recipe] is not None

    def verdict(self, recipe: Recipe) -> Verdict:
        """What a check that failed likewise found."""
        found = self.verdicts[recipe]
        assert found is not None
        return found

    def _check(self, recipe: Recipe, what: str) -> Verdict | None:
        self.made += 1
        smaller = make_smaller(self.bundle, recipe, f"reduced_{self.made}")
        smaller.write(self.directory)
        told = f"check {self.made} of at most {self.limit}: {what} ({recipe.words}): "
        try:
            verdict = self.workbench.verify(smaller.as_target(self.directory), **recipe.settings)
        except ResumecheckError as error:
            self.last = f"cannot be made: {str(error).splitlines()[0]}"
            self.tell(f"{told}{self.last}")
            self.workbench.bench.forget()
            return None
        sources = read_sources(self.workbench.bench.used.values())
        strayed = [path for path in sources.python if not path.resolve().is_relative_to(self.directory.resolve())]
        self.workbench.bench.forget()
        found = failure_of(verdict)
        if strayed and found == self.failure:
            self.last = f"not kept, since it imports {strayed[0]}, which the whole check did not"
            self.tell(f"{told}{self.last}")
            return None
        self.last = outcome(verdict, found, self.failure)
        self.tell(f"{told}{self.last}")
        return verdict if found == self.failure else None


def outcome(verdict: Verdict, found: Failure | None, expected: Failure) -> str:
    """What a check came to, in words."""
    if found == expected:
        return f"still {expected.code} {expected.component}"
    if found is not None:
        return f"other: {found.words}"
    if verdict.error:
        return f"the target fails: {verdict.error.splitlines()[0][:160]}"
    return verdict.verdict


def reduce(trials: Trials, recipe: Recipe, verdict: Verdict, facts: Mapping[str, Any]) -> Recipe | None:
    """The smallest recipe that was found to fail in the same way; None where the copy does not fail at all.

    Args:
        trials: makes the checks.
        recipe: the check of the report.
        verdict: what it found here.
        facts: `arguments` and `options` of the target.
    """
    parts_at = first_step(verdict)
    found = _settings(trials, recipe, parts_at)
    if found is None:
        if not trials.fails(recipe, "the copy of the target, as it is"):
            return None
        found = recipe
    found = _greedy(trials, found, simpler_options(facts))
    found = _fewest_steps(trials, found)
    found = _earliest_point(trials, found)
    return _fewest_steps(trials, found)


def _settings(trials: Trials, recipe: Recipe, parts_at: int | None) -> Recipe | None:
    """The recipe with plain settings and no step after the runs part, as far as that fails; None where nothing does."""
    plain = dataclasses.replace(recipe, interrupt="stop", on_resume=(), twice=False)
    short = dataclasses.replace(plain, steps=_within(parts_at, recipe))
    if trials.fails(short, "plain settings, until the runs part"):
        return short
    changes: dict[str, Change] = {}
    if recipe.interrupt != "stop":
        changes["interrupted by stop"] = lambda old: dataclasses.replace(old, interrupt="stop")
    if recipe.twice:
        changes["resumed once"] = lambda old: dataclasses.replace(old, twice=False)
    for pair in recipe.on_resume:
        changes[f"without {pair[0]} on resume"] = lambda old, pair=pair: dataclasses.replace(
            old, on_resume=tuple(other for other in old.on_resume if other != pair)
        )
    if short.steps < recipe.steps:
        changes["until the runs part"] = lambda old: dataclasses.replace(old, steps=short.steps)
    found = _one_by_one(trials, recipe, changes)
    return found if trials.verdicts.get(found) is not None else None


def _within(parts_at: int | None, recipe: Recipe) -> int:
    """As many steps as it takes to reach the one at which the runs part, and one after the resume point."""
    return min(recipe.steps, max(parts_at or recipe.at + 1, recipe.at + 1))


def simpler_options(facts: Mapping[str, Any]) -> dict[str, list[Change]]:
    """What the target may do without -> the changes to try, the simplest first."""
    changes: dict[str, list[Change]] = {}
    arguments: Mapping[str, Any] = facts.get("arguments", {})
    for name, simpler in SIMPLER_ARGUMENTS.items():
        first = next(iter(simpler))
        if first in arguments and arguments[first] != simpler[first]:
            differing = {key: value for key, value in simpler.items() if arguments.get(key, value) != value}
            changes[name] = [lambda old, new=differing: _with(old, arguments=new)]
    for name, value in facts.get("options", {}).items():
        smaller = smaller_values(value)
        if smaller:
            changes[f"smaller {name}"] = [lambda old, new={name: each}: _with(old, options=new) for each in smaller]
    return changes


def smaller_values(value: bool | int | float) -> list[bool | int | float]:
    """Values to try in place of an option, the smallest first."""
    if isinstance(value, bool):
        return [False] if value else []
    if isinstance(value, float):
        return [0.0] if value > 0 else []
    return [each for each in sorted({0, 1, 2, value // 4, value // 2}) if 0 <= each < value]


def _with(recipe: Recipe, **new: Mapping[str, Any]) -> Recipe:
    fields = {field: tuple({**dict(getattr(recipe, field)), **values}.items()) for field, values in new.items()}
    return dataclasses.replace(recipe, **fields)


def _greedy(trials: Trials, recipe: Recipe, changes: Mapping[str, list[Change]]) -> Recipe:
    """All changes at once, in their simplest form, or else each by itself."""
    together = recipe
    for ways in changes.values():
        together = ways[0](together)
    if len(changes) > 1 and trials.fails(together, ", ".join(changes)):
        return together
    for name, ways in changes.items():
        recipe = _first_that_fails(trials, recipe, name, ways)
    return recipe


def _first_that_fails(trials: Trials, recipe: Recipe, name: str, ways: Iterable[Change]) -> Recipe:
    for way in ways:
        changed = way(recipe)
        if trials.fails(changed, name):
            return changed
    return recipe


def _one_by_one(trials: Trials, recipe: Recipe, changes: Mapping[str, Change]) -> Recipe:
    for name, change in changes.items():
        recipe = _first_that_fails(trials, recipe, name, [change])
    return recipe


def _fewest_steps(trials: Trials, recipe: Recipe) -> Recipe:
    """Stop at the step at which the runs part, or as early as halving finds."""
    wanted = dataclasses.replace(recipe, steps=_within(first_step(trials.verdict(recipe)), recipe))
    if wanted.steps == recipe.steps:
        return recipe
    if trials.fails(wanted, "fewer steps"):
        return wanted
    return _halved(trials, recipe, "steps", wanted.steps, "fewer steps")


def _earliest_point(trials: Trials, recipe: Recipe) -> Recipe:
    """Resume at step 1, or at the earliest point that halving finds, before which the check does not fail."""
    if recipe.at == 1:
        return recipe
    first = dataclasses.replace(recipe, at=1)
    if trials.fails(first, "an earlier resume point"):
        return first
    return _halved(trials, recipe, "at", 1, "an earlier resume point")


def _halved(trials: Trials, recipe: Recipe, field: str, low: int, name: str) -> Recipe:
    """The recipe with the least value of a field that halving finds to fail; with `low` the check does not fail."""
    high = recipe
    while getattr(high, field) - low > 1:
        middle = (low + getattr(high, field)) // 2
        tried = dataclasses.replace(high, **{field: middle})
        if trials.fails(tried, name):
            high = tried
        elif trials.made >= trials.limit:
            break
        else:
            low = middle
    return high
