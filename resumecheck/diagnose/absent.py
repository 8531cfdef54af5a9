"""Files that a checkpoint does not have, where one of them would hold what is blamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from resumecheck.diagnose.findings import finding
from resumecheck.verdict import Finding, Status


def absent_files(
    absent: Mapping[str, Sequence[str]], point: int, blamed: Sequence[tuple[str, Status]]
) -> list[Finding]:
    """A finding that names the files, or none.

    Args:
        absent: the files -> the components that they hold.
        point: the step of the checkpoint.
        blamed: the components that are blamed, in order, each with the status of its finding.
    """
    of_blame = [(status, [name for name in absent if component in absent[name]]) for component, status in blamed]
    status, names = next((pair for pair in of_blame if pair[1]), (None, []))
    if status is None:
        return []
    held = ", ".join(dict.fromkeys(component for name in names for component in absent[name]))
    detail = f"the checkpoint of step {point} has no {' and no '.join(names)}, where loading looks for {held}"
    return [finding("checkpoint-files", status, detail, paths=names)]
