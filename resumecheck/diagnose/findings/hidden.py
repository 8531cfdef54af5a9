"""RC5xx: state that the trainer does not know of, and callbacks."""

from __future__ import annotations

from resumecheck.diagnose.findings.kind import FindingKind

KINDS: tuple[FindingKind, ...] = (
    FindingKind(
        code="RC501",
        component="hidden-state",
        title="the run depends on state that no checkpoint holds",
        advice="Keep it in a buffer or in a Stateful part that is saved and loaded, or compute it from "
        "state.global_step.",
        meaning="Something that a step reads and that earlier steps have changed is in no checkpoint: a Python "
        "attribute, a closure, a private generator, a cache, a module global. The path in the message says where it "
        "is.",
        causes=(
            "A count of updates is a Python int instead of a buffer (lightly-train #892).",
            "Inputs or a margin are buffered in an attribute of the trainer (trl #3148, #6123).",
            "A random generator of one's own starts again from its seed (a collator's, after transformers #36497).",
            "A queue, an iterator or a cached result in the model or the loss.",
            "A module option that a callback changes, or a switch that only one step sets.",
        ),
        example="""
            from transformers import Trainer


            class RampsUp(Trainer):
                calls = 0

                def compute_loss(self, model, inputs, *args, **kwargs):
                    self.calls += 1  # counts from 0 again in a resumed run
                    return super().compute_loss(model, inputs, *args, **kwargs) * min(1.0, self.calls / 100)
            """,
        cure="""
            from transformers import Trainer


            class RampsUp(Trainer):
                def compute_loss(self, model, inputs, *args, **kwargs):
                    weight = min(1.0, (self.state.global_step + 1) / 100)
                    return super().compute_loss(model, inputs, *args, **kwargs) * weight
            """,
    ),
    FindingKind(
        code="RC502",
        component="callbacks",
        title="the state of a callback is not restored",
        advice="Make the callback an ExportableState and set restore_callback_states_from_checkpoint=True, or derive "
        "its state.",
        meaning="A callback counts or remembers something that decides over the run (patience, averaged weights, a "
        "stop), and starts again after a resume. It shows late: when training stops, or does not.",
        causes=(
            "The Trainer saves the state of an ExportableState, and does not restore it by default (transformers "
            "#28544).",
            "The state is exported when training starts, not when it is saved (transformers #32115).",
            "Two callbacks of one class: each gets the state that the first ones had at the start (seen with "
            "transformers 5.23).",
            "It is saved before the callback has seen the epoch (Lightning #18727).",
            "That training had been stopped early is not saved (transformers #10290).",
        ),
        example="""
            from transformers import TrainerCallback


            class StopsAfter(TrainerCallback):
                def __init__(self, steps=10):
                    self.steps, self.done = steps, 0

                def on_step_end(self, args, state, control, **kwargs):
                    self.done += 1  # counts from 0 again in a resumed run
                    control.should_training_stop |= self.done >= self.steps
            """,
        cure="""
            from transformers import TrainerCallback
            from transformers.trainer_callback import ExportableState


            class StopsAfter(TrainerCallback, ExportableState):  # restore_callback_states_from_checkpoint=True
                def __init__(self, steps=10):
                    self.steps, self.done = steps, 0

                def on_step_end(self, args, state, control, **kwargs):
                    self.done += 1
                    control.should_training_stop |= self.done >= self.steps

                def state(self):
                    return {"args": {"steps": self.steps}, "attributes": {"done": self.done}}
            """,
    ),
)
