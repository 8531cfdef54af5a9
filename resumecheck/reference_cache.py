"""Reference runs kept from one session to the next. Off unless a directory is given.

The source run is made in any case. A kept reference run stands in for a new one only where everything that it depends
on is the same (files, arguments, versions, environment) and the source run equals it bit for bit; what is not sure is a
miss. That training repeats itself was then seen across sessions and not in this one, and the verdict says so. An entry
is JSON with a digest for each file; one that does not fit its digests is left aside with a note.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

from resumecheck.errors import UsageError
from resumecheck.runs.bench import REFERENCE_SEED, SOURCE_SEED, Bench, Experiment, Run, require_complete
from resumecheck.runs.opened import is_below, is_installed, read_opened
from resumecheck.runs.spec import RunSpec, read_end

FORMAT = 1

#: Environment variables that training reads, by their beginning.
_VARIABLES = (
    *(
        "ACCELERATE_",
        "CUBLAS_",
        "CUDA_",
        "CUDNN_",
        "FLASH_",
        "GLOO_",
        "HF_",
        "KMP_",
        "MKL_",
        "NCCL_",
        "NVIDIA_",
        "OMP_",
    ),
    *("OPENBLAS_", "PYTHON", "PYTORCH_", "TF32_", "TOKENIZERS_", "TORCH", "TRANSFORMERS_", "TRITON_"),
)
#: Places of the system: they are the same wherever the versions and the machine are, or hold no data.
_SYSTEM = ("/dev", "/proc", "/sys", "/etc", "/usr")
#: The files of a reference run that hold its record; a run that has stored tensors is not kept.
_RECORD = ("run.json", "steps.jsonl", "end.json")

_TEMPORARY = ".new-"


@dataclasses.dataclass(frozen=True)
class Uninterrupted:
    """The runs that are not interrupted, and what is to be said of where they come from."""

    reference: Run
    source: Run
    notes: tuple[str, ...] = ()


class ReferenceCache:
    """A directory of reference runs.

    Args:
        directory: where they are; it is made where it is not there.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the cache {directory} cannot be made ({error.strerror}); give a directory that can be written"
            ) from error
        self.directory = directory
        self._made_here: dict[str, tuple[str, ...]] = {}

    def runs(self, bench: Bench, experiment: Experiment) -> Uninterrupted:
        """The reference run, from here where that is right and made anew else, and the source run."""
        bench.watch_files = True
        key = _digest(_of_experiment(experiment))
        known = self.directory / key
        if key in self._made_here or not known.is_dir():
            made = _made(bench, experiment)  # What this session has made it does not make again.
            if key not in self._made_here:
                self._made_here[key] = self._keep(known, made.reference, made.source, bench)
            return dataclasses.replace(made, notes=self._made_here[key])
        source = require_complete(bench.source(experiment))
        facts = _of_run(bench, source)
        entry = None if isinstance(facts, str) else known / _digest(facts)
        notes: tuple[str, ...] = ()
        if entry is not None and entry.is_dir():
            reference, note = _read(bench, entry, experiment)
            if reference is not None and _equal(reference, source):
                return Uninterrupted(reference, source, (note,))
            notes = (note if reference is None else f"the reference run in {entry} is another run and was not used",)
        reference = require_complete(bench.reference(experiment))
        self._made_here[key] = (*notes, *self._keep(known, reference, source, bench))
        return Uninterrupted(reference, source, self._made_here[key])

    def _keep(self, known: Path, reference: Run, source: Run, bench: Bench) -> tuple[str, ...]:
        """Keep a reference run that its source run equals; a note says why another is not kept."""
        if not (reference.complete and source.complete and _equal(reference, source)):
            return ()
        facts = _of_run(bench, source)
        if isinstance(facts, str):
            return (f"the reference run was not kept for other sessions: {facts}",)
        names = [path.name for path in reference.directory.iterdir() if _is_record(path.name)]
        if any(path.suffix in (".pt", ".safetensors") for path in reference.directory.iterdir()):
            return ("the reference run was not kept for other sessions: it has stored tensors",)
        entry = known / _digest(facts)
        try:
            known.mkdir(exist_ok=True)
            new = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.directory))
            for name in names:
                shutil.copyfile(reference.directory / name, new / name)
            content = {
                "format": FORMAT,
                "made": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "files": {name: _of_file(new / name) for name in sorted(names)},
                "facts": facts,
            }
            (new / "entry.json").write_text(json.dumps(content, indent=1, default=repr), encoding="utf-8")
            shutil.rmtree(entry, ignore_errors=True)
            os.rename(new, entry)
        except OSError as error:
            return (f"the reference run was not kept for other sessions: {error}",)
        return ()


def uninterrupted(bench: Bench, experiment: Experiment, cache: ReferenceCache | None) -> Uninterrupted:
    """Reference and source run. Runs that store tensors, for a tolerance, are always made."""
    bench.pool.warm(REFERENCE_SEED, SOURCE_SEED)
    return _made(bench, experiment) if cache is None or experiment.keep_end else cache.runs(bench, experiment)


def _made(bench: Bench, experiment: Experiment) -> Uninterrupted:
    """Both runs, side by side."""
    pending = bench.threads.submit(bench.reference, experiment)
    source = bench.source(experiment)
    return Uninterrupted(require_complete(pending.result()), require_complete(source))


def _read(bench: Bench, entry: Path, experiment: Experiment) -> tuple[Run | None, str]:
    """The run of an entry, copied to where the others are, and where it is from; None and why where it is damaged."""
    directory = Path(tempfile.mkdtemp(prefix="reference-kept-", dir=bench.root))
    try:
        content = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
        if content["format"] != FORMAT or not set(_RECORD) <= set(content["files"]):
            raise ValueError("it is of another format")
        for name, digest in content["files"].items():
            if not _is_record(name) or _of_file(entry / name) != digest:
                raise ValueError(f"{name} is not the file that was written")
            shutil.copyfile(entry / name, directory / name)
        spec = RunSpec(experiment.target, "reference", str(directory), "", stop=experiment.steps)
        run = Run("reference", spec, read_end(directory))
        if run.trajectory.last_step < 1 or not run.complete:
            raise ValueError("its run is not complete")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return None, f"the kept reference run {entry} is damaged and was not used: {error}"
    note = (
        f"the reference run was not made: one that was kept on {content['made']} equals the source run, so that "
        "training repeats itself was seen across sessions, not in this one"
    )
    return run, note


def _equal(reference: Run, source: Run) -> bool:
    """Whether a source run is its reference run bit for bit. What is logged, and counters of saves, do not compute."""
    from resumecheck.compare.differences import compare
    from resumecheck.compare.tolerance import parse_tolerance

    last = reference.trajectory.last_step
    if source.trajectory.last_step != last:
        return False
    pair = reference.trajectory, source.trajectory
    found = compare(*pair, after=0, until=last, tolerance=parse_tolerance("bitwise"), steps=1)
    return all(not one.effect and (one.rung == "logs" or one.component in ("counters", "callbacks")) for one in found)


def _of_experiment(experiment: Experiment) -> dict[str, Any]:
    """What is known of a reference run before it is made."""
    return {
        "format": FORMAT,
        "target": [experiment.target.name, *map(repr, experiment.target.identity)],
        "steps": experiment.steps,
        "moments": experiment.moments,
        "on_resume": experiment.on_resume,
        "packages": sorted(f"{found.name} {found.version}" for found in importlib.metadata.distributions()),
        "resumecheck": [_of_file(path) for path in sorted(Path(__file__).parent.rglob("*.py"))],
        "machine": [platform.python_version(), platform.platform(), os.cpu_count(), *_hardware()],
        "environment": sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_VARIABLES)),
    }


def _of_run(bench: Bench, source: Run) -> dict[str, Any] | str:
    """What a run depends on, as the source run tells it: files and arguments; a text says why that is not sure."""
    read, written = read_opened(source.directory)
    own = (str(bench.root), *_SYSTEM)
    files: dict[str, str] = {}
    for name in read:
        path = Path(name)
        if path.suffix == ".pyc":
            try:
                path = Path(importlib.util.source_from_cache(name))
            except ValueError:
                return f"{name} has no source"
        if path.is_dir() or is_below(path, own) or is_installed(path):
            continue
        try:
            files[str(path)] = _of_file(path)
        except FileNotFoundError:
            files[str(path)] = "looked for in vain"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
    foreign = [name for name in sorted(written) if not is_below(Path(name), own) and "__pycache__" not in name]
    if foreign:
        return f"the target writes {foreign[0]}"
    facts = {name: source.facts.get(name) for name in ("arguments", "versions", "frameworks", "threads", "options")}
    return {"files": files, **facts}


def _hardware() -> list[str]:
    """The model of the processor and of the GPUs, where the system tells."""
    told = [line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")][:1]
    for gpu in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        told += _lines(gpu)
    return told


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _is_record(name: str) -> bool:
    return name in _RECORD or (name.startswith("census-") and name.endswith(".json") and "/" not in name)


def _of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode()).hexdigest()[:32]
