"""What the runs of a check recorded, as far as a report draws it: curves, events, and which state came back.

`Workbench.evidence` gathers it while the records are there; the report layer reads it. It is no part of the verdict or
of its JSON. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from resumecheck.state.components import ORDER

if TYPE_CHECKING:
    from resumecheck.runs.bench import Run
    from resumecheck.trajectory import Trajectory

Numbers = tuple[float | None, ...]

#: What a run records of each step as one number -> its heading.
QUANTITIES = {"loss": "Loss", "learning_rate": "Learning rate", "grad_norm": "Gradient norm"}


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """One run; of `loss`, `learning_rate` and `grad_norm` the first number belongs to step `first_step + 1`.

    Attributes:
        name: `reference`, `source`, `resumed from 4`.
        first_step: the step after which the run starts.
        loss: mean over the micro-batches of each step.
        learning_rate: of the first parameter group, as the update used it.
        grad_norm: total 2-norm of the gradients before clipping.
        checkpoints: the steps after which it wrote a checkpoint at a resume point.
        evaluations: the steps after which it evaluated.
    """

    name: str
    first_step: int
    loss: Numbers = ()
    learning_rate: Numbers = ()
    grad_norm: Numbers = ()
    checkpoints: tuple[int, ...] = ()
    evaluations: tuple[int, ...] = ()

    @property
    def last_step(self) -> int:
        """The last step that it finished."""
        return self.first_step + len(self.loss)

    def at(self, quantity: str, step: int) -> float | None:
        """A quantity (of `QUANTITIES`) of a step, None where it is not known."""
        values: Numbers = getattr(self, quantity)
        index = step - self.first_step - 1
        return values[index] if 0 <= index < len(values) else None

    def parts_from(self, other: RecordedRun) -> int | None:
        """The first step of both runs at which a recorded number differs, None where none does."""
        both = range(max(self.first_step, other.first_step) + 1, min(self.last_step, other.last_step) + 1)
        pairs = ((step, self.at(name, step), other.at(name, step)) for step in both for name in QUANTITIES)
        # Two numbers that are not a number are the same here, so the texts are compared.
        return next((step for step, mine, theirs in pairs if repr(mine) != repr(theirs)), None)


@dataclasses.dataclass(frozen=True)
class ComponentState:
    """How a component of the training state came back.

    Attributes:
        component: which one.
        leaves: how many tensors and values it has.
        lost: how many of them differ right after loading from the run that wrote the checkpoint.
        parts_at: the first step after which it differs from the reference run, None where none does.
        differing: how many leaves differ from the reference run after the last step that both ran.
        where: the first leaf that differs, right after loading or else after `parts_at`; "" where none does.
        expected, got: its digests, or its values where they are short; None where the leaf is missing.
    """

    component: str
    leaves: int
    lost: int = 0
    parts_at: int | None = None
    differing: int = 0
    where: str = ""
    expected: str | None = None
    got: str | None = None


@dataclasses.dataclass(frozen=True)
class ResumedRun:
    """A resumed run: the resume point, how often the run has been resumed, its record, and its state by component."""

    step: int
    resumes: int
    run: RecordedRun
    state: tuple[ComponentState, ...] = ()


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a check recorded.

    Attributes:
        reference: the uninterrupted run.
        source: the run that wrote the checkpoints.
        resumed: one entry for each resumed run that was judged, in order of step.
        steps_per_epoch: None where the target has no epochs of a known length.
        environment: name -> value, of the machine and of the versions.
        arguments: training arguments of the reference run.
    """

    reference: RecordedRun
    source: RecordedRun
    resumed: tuple[ResumedRun, ...] = ()
    steps_per_epoch: int | None = None
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    arguments: dict[str, str] = dataclasses.field(default_factory=dict)

    def of(self, step: int, resumes: int) -> ResumedRun | None:
        """The run that was resumed at that point, None where it recorded nothing."""
        return next((each for each in self.resumed if (each.step, each.resumes) == (step, resumes)), None)

    def to_plain(self) -> dict[str, Any]:
        """As plain types, to cross a process border."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> Evidence:
        """What `to_plain` made."""
        fields: dict[str, Any] = {
            **data,
            "reference": _recorded(data["reference"]),
            "source": _recorded(data["source"]),
            "resumed": tuple(_resumed(each) for each in data["resumed"]),
        }
        return cls(**fields)


def gather(
    reference: Run, source: Run, resumed: Mapping[tuple[int, int], tuple[Run, Run]], noise: Collection[str]
) -> Evidence:
    """Read the records of a check.

    Args:
        reference: the uninterrupted run.
        source: the run that wrote the checkpoints.
        resumed: (resume point, number of resumes) -> the run that wrote the checkpoint, and the run that loaded it.
        noise: `component|quantity|name` of leaves in which no two runs agree, which are left out.
    """
    facts = reference.facts
    environment = {**facts.get("versions", {}), "threads": facts.get("threads", ""), "platform": platform.platform()}
    return Evidence(
        reference=_record_of(reference),
        source=_record_of(source),
        resumed=tuple(
            ResumedRun(*point, _record_of(run, point[0]), tuple(_states(reference, writer, run, point[0], noise)))
            for point, (writer, run) in sorted(resumed.items())
        ),
        steps_per_epoch=reference.end.steps_per_epoch,
        environment={name: str(value) for name, value in environment.items() if value != ""},
        arguments={name: str(value) for name, value in facts.get("arguments", {}).items()},
    )


def _record_of(run: Run, start: int = 0) -> RecordedRun:
    trajectory = _trajectory(run)
    if trajectory is None:
        return RecordedRun(run.name, start)
    after = trajectory.first_step + 1
    rows = trajectory.rows.values()
    return RecordedRun(
        name=run.name,
        first_step=trajectory.first_step,
        loss=tuple(trajectory.loss[after:]),
        learning_rate=tuple(trajectory.learning_rate[after:]),
        grad_norm=tuple(trajectory.grad_norm[after:]),
        checkpoints=run.spec.save_at,
        evaluations=tuple(row.step for row in rows if any(event["kind"] == "evaluate" for event in row.events)),
    )


def _trajectory(run: Run) -> Trajectory | None:
    """The record of a run, None where it died before there was one."""
    try:
        return run.trajectory
    except ValueError:
        return None


def _states(reference: Run, writer: Run, run: Run, point: int, noise: Collection[str]) -> list[ComponentState]:
    got, expected, written = _trajectory(run), reference.trajectory, writer.trajectory
    if got is None or point not in written.rows:
        return []
    saved, loaded = written.rows[point].state, got.rows[got.first_step].state
    both = [step for step in got.steps if step in expected.rows]
    found: list[ComponentState] = []
    for component in sorted({*saved, *loaded}, key=lambda name: ORDER[name]):

        def unlike(
            before: dict[str, dict[str, str]], now: dict[str, dict[str, str]], name: str = component
        ) -> list[str]:
            pair = before.get(name, {}), now.get(name, {})
            keys = [key for key in {**pair[0], **pair[1]} if pair[0].get(key) != pair[1].get(key)]
            return [key for key in keys if f"{name}|{key}" not in noise]

        lost = unlike(saved, loaded)
        parting = next((step for step in both if unlike(expected.rows[step].state, got.rows[step].state)), None)
        at_end = unlike(expected.rows[both[-1]].state, got.rows[both[-1]].state) if both else []
        pair = saved, loaded
        keys = lost
        if not lost and parting is not None:
            pair = expected.rows[parting].state, got.rows[parting].state
            keys = unlike(*pair)
        found.append(
            ComponentState(
                component,
                leaves=len({**saved.get(component, {}), **loaded.get(component, {})}),
                lost=len(lost),
                parts_at=parting,
                differing=len(at_end),
                where=keys[0].replace("|", " ", 1) if keys else "",
                expected=pair[0].get(component, {}).get(keys[0]) if keys else None,
                got=pair[1].get(component, {}).get(keys[0]) if keys else None,
            )
        )
    return found


def _recorded(data: dict[str, Any]) -> RecordedRun:
    fields: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in data.items()}
    return RecordedRun(**fields)


def _resumed(data: dict[str, Any]) -> ResumedRun:
    state = tuple(ComponentState(**component) for component in data["state"])
    return ResumedRun(data["step"], data["resumes"], _recorded(data["run"]), state)
