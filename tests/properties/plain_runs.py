"""What a set-up really does when it is resumed, measured without the check: by fresh processes that just train."""

import dataclasses
import hashlib
import shutil
import tempfile
from pathlib import Path

from tests.plain_server import PlainServer


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


class PlainRuns(PlainServer):
    """A preloaded server."""

    def __init__(self):
        modules = ("resumecheck.strategies.mutations", "resumecheck.zoo.streams")
        super().__init__(f"{__name__}:train", *modules, TRANSFORMERS_VERBOSITY="error")

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
        where = None if resume_from is None else str(resume_from)
        run, died = self.ask(setup, str(output_dir), saves, save_at, where)
        return run or Run((), (), (), (), "", -1, died)


def train(setup, output_dir, saves, save_at, resume_from):
    """The run in this process."""
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
