"""What must be true of a verdict: nothing is blamed on a clean set-up, and a lost state is found where it matters."""

import dataclasses
import traceback


@dataclasses.dataclass(frozen=True)
class Judged:
    """A verdict on a set-up, beside what plain runs did.

    Attributes:
        outcomes: per resume point what the check said.
        differs: per resume point what is different in plain runs; None where they were not made.
        mistake: empty, `false alarm`, `miss`, `crash` (of the check) or `does not train` (nor does a plain run).
        text: the verdict for a reader.
    """

    setup: object
    outcomes: dict
    differs: dict | None
    mistake: str
    text: str

    @property
    def explanation(self):
        """For the message of a failing test: the set-up to paste, and what was said of it."""
        return f"{self.mistake}: {self.setup!r}\nplain runs differ: {self.differs}\n{self.text}"


def judge(workbench, plain_runs, setup):
    """Check a set-up, and hold the verdict against plain runs: for a clean one only where something is blamed."""
    try:
        verdict = workbench.verify(setup, steps=setup.length, at=setup.at)
    except Exception:
        return Judged(setup, dict.fromkeys(setup.at, "crash"), None, "crash", traceback.format_exc())
    outcomes = {point.step: point.verdict for point in verdict.resume_points} or dict.fromkeys(
        setup.at, verdict.verdict
    )
    blames = verdict.findings or any(point.findings for point in verdict.resume_points)
    if not setup.mutation and verdict.equivalent and not blames:
        return Judged(setup, outcomes, None, "", "")
    try:
        differs = plain_runs.differs(setup)
    except RuntimeError as error:
        return Judged(setup, outcomes, None, "does not train", f"{error}\n{describe(verdict)}")
    mistake = ""
    if not setup.mutation:
        mistake = "false alarm"
    elif any(differs[step] and outcome != "diverged" for step, outcome in outcomes.items()):
        mistake = "miss"
    elif any(not differs[step] and outcome != "equivalent" for step, outcome in outcomes.items()):
        mistake = "false alarm"
    return Judged(setup, outcomes, differs, mistake, describe(verdict))


def describe(verdict):
    """The verdict with all that it blames."""
    lines = [f"verdict: {verdict.verdict} {verdict.error or ''}".strip()]
    lines += [f"  {finding.code} {finding.component} {finding.message}" for finding in verdict.findings]
    for point in verdict.resume_points:
        lines.append(f"  point {point.step}: {point.verdict}, first difference: {point.first_divergence}")
        lines += [
            f"    {finding.code} {finding.component} ({finding.status}) {finding.message}" for finding in point.findings
        ]
        lines += [f"    latent: {finding.code} {finding.component} {finding.message}" for finding in point.latent]
    return "\n".join(lines)
