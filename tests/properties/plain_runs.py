"""What a set-up really does when it is resumed, measured without resumecheck: fresh processes, plain `trainer.train()`.

`serve` is a server that has imported torch and transformers; it forks a process for each request (one pickle on stdin)
and answers with how the run went (one pickle on stdout).
"""

import contextlib
import dataclasses
import gc
import hashlib
import importlib
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run by what it does, floats as their exact text.

    Attributes:
        losses: (step, loss) of each micro-batch.
        rates: (step, learning rates of the groups) of each update.
        evaluations: (step, metrics).
        states: (step, digest of weights, persistent buffers and the optimizer's state after it).
        start: the same digest when training begins, with everything loaded.
        end: the last step.
        error: the exception if it died.
    """

    losses: tuple
    rates: tuple
    evaluations: tuple
    states: tuple
    start: str
    end: int
    error: str = ""

    def after(self, point):
        """What a run that is resumed after step `point` must do as well."""
        parts = (self.losses, self.rates, self.evaluations, self.states)
        return (*(tuple(item for item in part if item[0] > point) for part in parts), self.end, self.error)


class PlainRuns:
    """A preloaded server."""

    def __init__(self):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def differs(self, setup):
        """For each resume point what is different in the resumed run, or what saving makes different.

        `a step`: a loss, a rate, an evaluation, the state after a step, or the number of steps. `what was loaded`: no
        step is, but the weights, buffers or moments that training goes on from are. Empty: nothing is.
        """
        output_dir = Path(tempfile.mkdtemp(prefix="plain-runs-"))
        try:
            reference = self._run(setup, output_dir / "reference", saves=False)
            saving = self._run(setup, output_dir / "saving", save_at=setup.at)
            if reference.error or saving.error:
                raise RuntimeError(f"{setup} does not train: {reference.error or saving.error}")
            if saving.after(0) != reference.after(0):
                return dict.fromkeys(setup.at, "a step")
            found = {}
            for point in setup.at:
                # A process that is started after an interruption finds what there was then.
                shutil.copytree(output_dir / "saving" / f"checkpoint-{point}", output_dir / str(point) / "checkpoint")
                resumed = self._run(setup, output_dir / str(point), resume_from=output_dir / str(point) / "checkpoint")
                # A run that starts from the wrong step does something at or before the resume point.
                early = any(step <= point for step, _ in resumed.losses)
                if early or resumed.after(point) != reference.after(point):
                    found[point] = "a step"
                else:
                    found[point] = "" if resumed.start == dict(reference.states)[point] else "what was loaded"
            return found
        finally:
            shutil.rmtree(output_dir)

    def _run(self, setup, output_dir, *, saves=True, save_at=(), resume_from=None):
        request = (setup, str(output_dir), saves, save_at, None if resume_from is None else str(resume_from))
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def close(self):
        """Close the pipe, which ends the server."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve():
    """Fork a process for each request until stdin closes."""
    import torch

    for name in ("transformers.trainer", "accelerate", "resumecheck.strategies.mutations", "resumecheck.zoo.streams"):
        importlib.import_module(name)
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _answer(request, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        answers.write(answer or pickle.dumps(Run((), (), (), (), "", -1, f"died with status {status}")))
        answers.flush()


def _answer(request, writing):
    try:
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            run = _train(*request)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(run, pipe)
    finally:
        os._exit(0)


def _train(setup, output_dir, saves, save_at, resume_from):
    import numpy
    import torch

    # Nothing may be inherited from the server: what a set-up does not seed or restore is different in each process.
    random.seed(os.urandom(16))
    numpy.random.seed(int.from_bytes(os.urandom(4), "big"))
    torch.manual_seed(int.from_bytes(os.urandom(7), "big"))
    error, losses, watch, trainer = "", [], None, None
    try:
        trainer = setup(output_dir)
        if not saves:
            trainer.args.save_strategy = "no"
        watch = _watch(set(save_at))
        trainer.add_callback(watch)
        step = trainer.training_step

        def watched(*args, **kwargs):
            loss = step(*args, **kwargs)
            losses.append((trainer.state.global_step + 1, float(loss).hex()))
            return loss

        trainer.training_step = watched
        trainer.train(resume_from_checkpoint=resume_from)
    except Exception as exception:
        error = f"{type(exception).__name__}: {exception}"
    if watch is None:
        return Run((), (), (), (), "", -1, error)
    seen = (watch.rates, watch.evaluations, watch.states)
    return Run(tuple(losses), *(tuple(part) for part in seen), watch.start, trainer.state.global_step, error)


def _watch(save_at):
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def __init__(self):
            self.rates, self.evaluations, self.states = [], [], []
            self.start = ""

        def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
            self.start = _state(model, optimizer)

        def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            rates = tuple(float(group["lr"]).hex() for group in optimizer.param_groups)
            self.rates.append((state.global_step + 1, rates))

        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            numbers = {name: value for name, value in metrics.items() if name in ("eval_loss", "eval_flat")}
            self.evaluations.append((state.global_step, str(numbers)))

        def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
            self.states.append((state.global_step, _state(model, optimizer)))
            # At an epoch's end a checkpoint is written after the epoch's evaluation, as save_strategy="epoch" does.
            if state.global_step in save_at and not float(state.epoch).is_integer():
                control.should_save = True

        def on_epoch_end(self, args, state, control, **kwargs):
            if state.global_step in save_at:
                control.should_save = True

    return Watch()


def _state(model, optimizer):
    return _digest({"model": model.state_dict(), "optimizer": optimizer.state_dict()["state"]})


def _digest(value):
    """Over names, types, shapes and bytes of every tensor, and the text of everything else."""
    import torch

    digest = hashlib.sha256()

    def add(path, item):
        if isinstance(item, dict):
            for key in sorted(item, key=str):
                add(f"{path}.{key}", item[key])
        elif torch.is_tensor(item):
            raw = item.detach().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{path} {item.dtype} {tuple(item.shape)}".encode() + raw.numpy().tobytes())
        else:
            digest.update(f"{path} {item!r}".encode())

    add("", value)
    return digest.hexdigest()[:16]
