"""The result of a check: facts as frozen dataclasses, and their JSON form.

`check.verify` makes a `Verdict`; the report layer, the plugin and the command line read it. Nothing here imports torch.
The JSON contract is `Verdict.to_json()`; its schema is `resumecheck/schema/verdict-1.json`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

Outcome = Literal["equivalent", "diverged", "nondeterministic", "error"]
Status = Literal["confirmed", "suspected"]

#: Exit status of the command line for each outcome (2 is wrong usage).
EXIT_STATUS: dict[Outcome, int] = {"equivalent": 0, "diverged": 1, "nondeterministic": 3, "error": 4}

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Divergence:
    """The first difference between two trajectories in causal order.

    Attributes:
        step: the optimizer step (1-based) whose computation is the first to use or to produce the different value.
        rung: the rung of the causal ladder, for example `state-after-loading`, `batch-content`, `loss`.
        component: the component that the quantity belongs to, for example `optimizer-moments`.
        quantity: what was compared, for example `exp_avg` or `loss`.
        name: the tensor, attribute path, parameter group or stream that differs ("" where there is only one).
        expected: the value in the uninterrupted run, as a number or a short text.
        got: the value in the resumed run.
        max_abs: largest absolute difference over the elements, None where it was not measured.
        max_ulp: largest distance in units in the last place, None where it was not measured.
    """

    step: int
    rung: str
    component: str
    quantity: str
    name: str
    expected: float | int | str | None
    got: float | int | str | None
    max_abs: float | None = None
    max_ulp: int | None = None


@dataclasses.dataclass(frozen=True)
class Finding:
    """A named diagnosis: a stable code, the blamed component, whether a transplant confirmed it, and what to do."""

    code: str
    component: str
    status: Status
    message: str
    advice: str
    evidence: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StepPair:
    """One step of the expected and of the resumed run side by side, for the table around the divergence.

    `expected` and `got` hold `loss` (mean over micro-batches), `grad_norm`, `learning_rate` (first group),
    `samples` (the first few ids) where known; `equal` says whether every recorded quantity of the step is equal.
    """

    step: int
    expected: dict[str, Any] | None
    got: dict[str, Any] | None
    equal: bool


@dataclasses.dataclass(frozen=True)
class ResumePoint:
    """What one resumed run showed.

    Attributes:
        step: the optimizer step after which the checkpoint was taken.
        horizon: `end` or `next`.
        verdict: `equivalent`, `diverged` or `error`.
        first_divergence: None where equivalent.
        findings: in order of blame, the root cause first.
        latent: state that came back different and had no effect on any step up to the horizon.
        window: the steps around the divergence.
        compared: how many steps after the resume point were compared.
        resumes: how many times the run has been resumed: 2 where a resumed run was interrupted and resumed again.
    """

    step: int
    horizon: str
    verdict: Outcome
    first_divergence: Divergence | None = None
    findings: tuple[Finding, ...] = ()
    latent: tuple[Finding, ...] = ()
    window: tuple[StepPair, ...] = ()
    compared: int = 0
    resumes: int = 1


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a check was made, beyond its steps, resume points and tolerance: with these it can be made again.

    Attributes:
        horizon, interrupt, on_resume, twice: as in `check.Workbench.verify`.
        command: the words of a command, with `{out}`; empty for a target.
        resume_option: what a resumed run adds to the command.
        checkpoint: where a command saves.
    """

    horizon: str = "end"
    interrupt: str = "stop"
    on_resume: dict[str, str] = dataclasses.field(default_factory=dict)
    twice: bool = False
    command: tuple[str, ...] = ()
    resume_option: str = ""
    checkpoint: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer for one target.

    Attributes:
        target: the name of the target as the user gave it.
        verdict: the outcome over all resume points.
        tolerance: as given, `bitwise` unless stated.
        steps: length of the reference run, in optimizer steps.
        steps_executed: optimizer steps executed by all runs of the check together.
        reference_repeats: whether the uninterrupted run repeated itself.
        resume_points: one entry each, in order of step.
        findings: findings that belong to no single resume point (nondeterminism, an error of the target).
        notes: what was overridden, what was not checked.
        versions: of python, torch, transformers, accelerate, resumecheck.
        error: for the outcome `error`, the exception of the target and where it was raised.
        kept: the directory with the recorded trajectories, None where they were removed.
        settings: how the check was made.
    """

    target: str
    verdict: Outcome
    tolerance: str
    steps: int
    steps_executed: int
    reference_repeats: bool
    resume_points: tuple[ResumePoint, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    error: str | None = None
    kept: str | None = None
    settings: Settings = Settings()

    @property
    def equivalent(self) -> bool:
        """True where every resumed run was the same run as the uninterrupted one."""
        return self.verdict == "equivalent"

    @property
    def exit_status(self) -> int:
        """The exit status that the command line gives for this verdict."""
        return EXIT_STATUS[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON types, in the shape of the published schema."""
        return {"schema": SCHEMA_VERSION, **plain_json(dataclasses.asdict(self))}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Verdict:
        """The verdict that `to_json` wrote; a ValueError names a schema version that is not known."""
        if data.get("schema") != SCHEMA_VERSION:
            raise ValueError(f"schema version {data.get('schema')!r} is not known here, expected {SCHEMA_VERSION}")
        fields = {name: value for name, value in data.items() if name != "schema"}
        fields["resume_points"] = tuple(_resume_point(point) for point in fields.get("resume_points", ()))
        fields["findings"] = tuple(Finding(**finding) for finding in fields.get("findings", ()))
        fields["notes"] = tuple(fields.get("notes", ()))
        settings: dict[str, Any] = dict(fields.get("settings", {}))
        settings["command"] = tuple(settings.get("command", ()))
        fields["settings"] = Settings(**settings)
        return cls(**fields)


def _resume_point(data: dict[str, Any]) -> ResumePoint:
    divergence = data.get("first_divergence")
    fields: dict[str, Any] = {
        **data,
        "first_divergence": Divergence(**divergence) if divergence else None,
        "findings": tuple(Finding(**finding) for finding in data.get("findings", ())),
        "latent": tuple(Finding(**finding) for finding in data.get("latent", ())),
        "window": tuple(StepPair(**pair) for pair in data.get("window", ())),
    }
    return ResumePoint(**fields)


def plain_json(value: Any) -> Any:
    """Tuples as lists, and floats that JSON cannot hold (nan, inf) as text."""
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
