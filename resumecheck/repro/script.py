"""Writes the script: the target's source as literals that read like files, one call of `resumecheck.verify`."""

from __future__ import annotations

import ast
import base64
import pprint
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata

from resumecheck.repro.bundle import Bundle
from resumecheck.repro.failure import Failure, Recipe

WIDTH = 110

_SCRIPT = '''\
#!/usr/bin/env python3
"""{summary}

Written by `resumecheck repro`. It needs nothing but what this installs:

    pip install {requirements}

Exit status: 1 where the failure is still there, 0 where it is gone, 2 or 70 where this script cannot be used here,
3 where the uninterrupted run does not repeat itself, so that a resume cannot be judged, 4 where the target itself
fails.{outside}
"""

import base64
import os
import sys
import tempfile
import traceback
from pathlib import Path

try:
    import resumecheck
    from resumecheck.report.terminal import explanation
except ImportError as absent:
    print(f"{{absent}}; see the first lines of this script for what it needs", file=sys.stderr)
    sys.exit(2)

#: What is checked, and how.
TARGET = {target!r}
SETTINGS = {settings}

#: What the check fails with: verdict, code and component of the first finding.
FAILURE = {failure!r}

#: Files that the target reads and that this script does not hold.
OUTSIDE = {outside_files}

#: Directories that modules are imported from, and the working directory.
ROOTS = {roots!r}
HOME = {home!r}

FILES = {{}}
BINARY_FILES = {{}}
{files}

def main() -> int:
    """Lay out the files, check the target, say what was found."""
    absent = [path for path in OUTSIDE if not os.path.exists(path)]
    if absent:
        print(f"not here, and the target reads it: {{absent[0]}}", file=sys.stderr)
        return 2
    start = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="resumecheck-repro-") as directory:
        contents = {{name: text.encode() for name, text in FILES.items()}}
        contents.update((name, base64.b64decode(text)) for name, text in BINARY_FILES.items())
        for name, content in contents.items():
            file = Path(directory, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        roots = [os.path.normpath(os.path.join(directory, root)) for root in ROOTS]
        os.environ["PYTHONPATH"] = os.pathsep.join([*roots, *filter(None, [os.environ.get("PYTHONPATH")])])
        Path(directory, HOME).mkdir(parents=True, exist_ok=True)
        os.chdir(Path(directory, HOME))
        try:
            verdict = resumecheck.verify(TARGET, **SETTINGS)
        except resumecheck.ResumecheckError as error:
            print(f"resumecheck: {{error}}", file=sys.stderr)
            return 4 if isinstance(error, resumecheck.TargetError) else 2
        except Exception:  # Python's own exit status would be 1, which here means that the failure is still there.
            traceback.print_exc()
            return 70
        finally:
            os.chdir(start)
    print(explanation(verdict, f"{{sys.executable}} {{__file__}}"))
    return status(verdict)


def status(verdict) -> int:
    """1 where it fails as before, 0 where that is gone, else the status of `resumecheck verify`."""
    failed = [point for point in verdict.resume_points if point.verdict != "equivalent"]
    findings = failed[0].findings if failed else verdict.findings
    found = (verdict.verdict, findings[0].code, findings[0].component) if findings else (verdict.verdict, "", "")
    if verdict.equivalent:
        print("\\nThe failure is gone.")
        return 0
    if found == FAILURE:
        print(f"\\nThe failure is still there: {{' '.join(FAILURE)}}.")
        return 1
    print(f"\\nIt was {{' '.join(FAILURE)}}, and is now {{' '.join(found).strip()}}.")
    if FAILURE[0] == "nondeterministic" and verdict.verdict == "diverged":
        return 0  # The uninterrupted run repeats itself now, which is what this script is about.
    return verdict.exit_status


if __name__ == "__main__":
    sys.exit(main())
'''


def script(bundle: Bundle, recipe: Recipe, failure: Failure, summary: str, packages: Mapping[str, str]) -> str:
    """The text of the script.

    Args:
        bundle: the target, made smaller.
        recipe: the check.
        failure: what it fails with.
        summary: the failure in a sentence.
        packages: what is to be installed -> version.
    """
    outside = ""
    if bundle.outside:
        outside = "\n\nIt does not hold these files, which the target reads:\n\n" + "\n".join(
            f"    {path}" for path in bundle.outside
        )
    return _SCRIPT.format(
        summary=_in_docstring(summary),
        requirements=requirements(packages),
        outside=_in_docstring(outside),
        target=bundle.target,
        settings=pprint.pformat(recipe.settings, width=WIDTH, sort_dicts=False),
        failure=(failure.verdict, failure.code, failure.component),
        outside_files=pprint.pformat(list(bundle.outside), width=WIDTH),
        roots=list(bundle.path),
        home=bundle.home,
        files="\n".join(literal(name, content) for name, content in bundle.files.items()) + "\n",
    )


def literal(name: str, content: bytes) -> str:
    """The statement that holds a file, as text that reads like the file where that is possible."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    if text is None or "\r" in text or "\0" in text or not _declares_utf8(content):
        encoded = base64.b64encode(content).decode()
        lines = [f"    {encoded[start : start + WIDTH]!r}" for start in range(0, len(encoded), WIDTH)] or ["    ''"]
        return f"BINARY_FILES[{name!r}] = (\n" + "\n".join(lines) + "\n)"
    if not text:
        return f"FILES[{name!r}] = ''"
    for quotes in ("'''", '"""'):
        statement = f"FILES[{name!r}] = r{quotes}{text}{quotes}"
        if _holds(statement, text):
            return statement
    escaped = text.replace("\\", "\\\\").replace("'''", "\\'\\'\\'")
    if escaped.endswith("'"):
        escaped = escaped[:-1] + "\\'"
    statement = f"FILES[{name!r}] = '''{escaped}'''"
    return statement if _holds(statement, text) else f"FILES[{name!r}] = {text!r}"


def _holds(statement: str, text: str) -> bool:
    """Whether the literal of a statement is this text, as Python reads it."""
    try:
        (assigned,) = ast.parse(statement).body
    except (SyntaxError, ValueError):
        return False
    value = assigned.value if isinstance(assigned, ast.Assign) else None
    return isinstance(value, ast.Constant) and value.value == text


def _declares_utf8(content: bytes) -> bool:
    """Whether a Python file is in the encoding that it says it is in, UTF-8."""
    declared = re.search(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", b"\n".join(content.splitlines()[:2]), re.MULTILINE)
    return declared is None or declared[1].lower().replace(b"_", b"-") in (b"utf-8", b"utf8")


def _in_docstring(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', "'''")


def packages_of(files: Mapping[str, bytes], versions: Mapping[str, str]) -> dict[str, str]:
    """The package resumecheck, and the installed ones that these files import -> their versions."""
    imported: dict[str, None] = {}
    for name, content in files.items():
        if name.endswith(".py"):
            imported |= dict.fromkeys(_imports(content))
    distributions = metadata.packages_distributions()
    found = {"resumecheck": versions.get("resumecheck", "")}
    for module in imported:
        for distribution in distributions.get(module, [])[:1]:
            if module not in sys.stdlib_module_names:
                found.setdefault(distribution, metadata.version(distribution))
    for name in ("torch", "transformers", "accelerate"):
        found.setdefault(name, versions.get(name, ""))
    return {name: version for name, version in found.items() if version}


def _imports(content: bytes) -> Iterable[str]:
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def requirements(packages: Mapping[str, str]) -> str:
    """The packages as words for pip, without local parts of versions such as `+cpu`."""
    return " ".join(f"{name}=={version.partition('+')[0]}" for name, version in packages.items())
