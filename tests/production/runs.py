"""Small production runs in processes of their own, recorded, killed and resumed."""

import gc
import json
import os
import signal
from importlib.resources import files

import jsonschema
from transformers import Trainer, TrainerCallback

from resumecheck.production.audit import audit as audit_record
from resumecheck.production.recorder import Recorder
from tests.embedding import forks
from tests.targets.plain import make_trainer

SCHEMA = json.loads((files("resumecheck") / "schema" / "audit-1.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


class Kills(TrainerCallback):
    """Ends the process by SIGKILL when an event comes at a step."""

    def __init__(self, event, step):
        setattr(self, event, lambda args, state, control, **_: self.kill(state.global_step == step))

    @staticmethod
    def kill(now):
        if now:
            os.kill(os.getpid(), signal.SIGKILL)


class Stops(TrainerCallback):
    """Ends training after a step, as on a signal that asks for it."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = control.should_training_stop or state.global_step == self.step


class Run:
    """A run of two epochs of 7 steps that saves every 4th, in `directory`; its record is in `record`."""

    def __init__(self, directory, *, level="light", cls=Trainer, model=None, rows=None, **arguments):
        self.output, self.record = directory / "out", directory / "record"
        self.level, self.cls, self.model, self.rows = level, cls, model, rows
        self.arguments = {"save_strategy": "steps", "save_steps": 4, **arguments}

    def start(self, *callbacks, resume=None, record=None, output=None, recorder=True, **changes):
        """Train in a new process, from a checkpoint where one is given; returns its exit status."""

        def train():
            gc.freeze()  # the collection at the end of a training would walk all that the parent has imported
            trainer = make_trainer(
                output or self.output,
                self.cls,
                model=self.model() if self.model is not None else None,
                rows=self.rows() if self.rows is not None else None,
                **{**self.arguments, **changes},
            )
            if recorder:
                trainer.add_callback(Recorder(record or self.record, level=self.level))
            for callback in callbacks:
                trainer.add_callback(callback)
            trainer.train(resume_from_checkpoint=None if resume is None else str(self.checkpoint(resume)))

        return forks.run(train)

    def killed(self, step, event="on_step_end", **changes):
        """Train until a kill."""
        assert forks.was_killed(self.start(Kills(event, step), **changes))

    def resumed(self, step, **changes):
        """Go on from the checkpoint of a step, to the end."""
        assert self.start(resume=step, **changes) == 0

    def checkpoint(self, step):
        """Where the checkpoint of a step is."""
        return self.output / f"checkpoint-{step}"

    def audit(self):
        """The audit of the record, whose JSON is valid."""
        return audit(self.record)


def audit(record):
    """An audit whose JSON is valid."""
    found = audit_record(record)
    VALIDATOR.validate(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    return found


def only(found):
    """The one resume of an audit."""
    (resume,) = found.resumes
    return resume


def codes(resume):
    """The findings of a resume as (code, component)."""
    return [(finding.code, finding.component) for finding in resume.findings]
