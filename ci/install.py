"""Install torch, resumecheck and what the target needs, into the Python that runs this.

torch comes first and alone, from the index that was named, so that nothing else is looked for there. It then stays as
it is: requirements that ask for another torch are an error of pip, not a second torch of several gigabytes.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from inputs import INSTALLED, ROOT, Inputs, UsageError, run_step

_PIP = (sys.executable, "-m", "pip")


def torch_command(inputs: Inputs) -> list[str]:
    """The words of pip that install torch from its own index; none where no index was named."""
    if not inputs.torch_index_url:
        return []
    torch = f"torch=={inputs.torch_version}" if inputs.torch_version else "torch"
    return ["install", "--index-url", inputs.torch_index_url, torch]


def command(inputs: Inputs, constraints: Path | None) -> list[str]:
    """The words of pip that install everything else, in one go; none where there is nothing to install.

    Args:
        inputs: what was asked for.
        constraints: the file that keeps torch as it is, None where it may come from anywhere.
    """
    wanted = [word for file in inputs.requirements for word in ("-r", file)] + inputs.install
    if inputs.torch_version and not inputs.torch_index_url:
        wanted = [f"torch=={inputs.torch_version}", *wanted]
    extras = f"[{','.join(inputs.extras)}]" if inputs.extras else ""
    if not inputs.resumecheck_version:
        wanted = [f"resumecheck{extras} @ {ROOT.as_uri()}", *wanted]
    elif inputs.resumecheck_version != INSTALLED:
        wanted = [f"resumecheck{extras}=={inputs.resumecheck_version}", *wanted]
    return ["install", *(["-c", str(constraints)] if constraints else []), *wanted] if wanted else []


def main() -> int:
    """Install, and say which versions are there."""
    inputs = Inputs.load(os.environ["RESUMECHECK_INPUTS"])
    constraints = None
    if torch := torch_command(inputs):
        _pip(torch, inputs, "torch-index-url has no such torch for this Python, or cannot be reached")
        constraints = Path(f"{inputs.report}.constraints.txt")
        constraints.write_text(f"torch==={metadata.version('torch')}\n", encoding="utf-8")
    if rest := command(inputs, constraints):
        kept = f"; torch is kept at {constraints.read_text().strip()}: set torch-version" if constraints else ""
        _pip(rest, inputs, f"see what pip says above{kept}")
    for name in ("resumecheck", "torch", "transformers"):
        print(f"{name} {_version(name)}")
    return 0


def _pip(words: list[str], inputs: Inputs, advice: str) -> None:
    print(f"pip {shlex.join(words)}", flush=True)
    if subprocess.run([*_PIP, *words], cwd=inputs.working_directory, check=False).returncode != 0:
        raise UsageError(f"install: pip {words[-1]} failed\n{advice}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        raise UsageError(
            f"install: {name} is not installed after all was installed; resumecheck-version: {INSTALLED} expects it in "
            "requirements, in install or in an earlier step"
        ) from None


if __name__ == "__main__":
    run_step(main)
