"""RC4xx: the optimizer, the schedule, the gradient scaler and accumulated gradients."""

from __future__ import annotations

from resumecheck.diagnose.findings.kind import FindingKind

KINDS: tuple[FindingKind, ...] = (
    FindingKind(
        code="RC401",
        component="optimizer-moments",
        title="the optimizer's moments are not restored, or not to the right parameters",
        advice="Save and load optimizer.state_dict() unchanged, with parameters in the same order.",
        meaning="The running statistics of the optimizer (momentum, second moments) are fresh, rounded, or those of "
        "another parameter. The first loss after the resume is right; the first update is not.",
        causes=(
            "State is matched by position: parameters in another order get each other's moments, without an error "
            "where shapes agree (pytorch #1489).",
            "The file is looked for under another name, and nothing is loaded (transformers #25849).",
            "Only one process's share is saved (transformers #23034).",
            "A round trip through another format transposes or corrupts them (flashoptim #3).",
            "They are saved in a narrower type, which rounds them.",
        ),
        example="""
            from pathlib import Path

            import torch
            from transformers import Trainer


            class SavesNarrow(Trainer):
                def _save_optimizer_and_scheduler(self, output_dir):
                    super()._save_optimizer_and_scheduler(output_dir)
                    file = Path(output_dir) / "optimizer.pt"
                    saved = torch.load(file)
                    for state in saved["state"].values():
                        for name in ("exp_avg", "exp_avg_sq"):
                            state[name] = state[name].bfloat16()  # half the size, and 8 of 24 bits
                    torch.save(saved, file)
            """,
        cure="""
            from pathlib import Path

            import torch
            from transformers import Trainer


            class ExportsNarrow(Trainer):
                def _save_optimizer_and_scheduler(self, output_dir):
                    super()._save_optimizer_and_scheduler(output_dir)  # what is resumed from stays as it is
                    small = {name: tensor.bfloat16() for name, tensor in self.model.state_dict().items()}
                    torch.save(small, Path(output_dir) / "for_inference.pt")
            """,
    ),
    FindingKind(
        code="RC402",
        component="optimizer-step",
        title="the optimizer's step counts are not restored",
        advice="Keep `step` in the optimizer state, as float32 or wider; bias correction depends on it.",
        meaning="Moments are right, but the optimizer takes itself to be at another step. Adam divides by 1 - "
        "beta**step: from step 0 the first updates are several times too large.",
        causes=(
            "The count is kept in the parameter groups, and those are not saved (DeepSpeed #4396).",
            "The count is cast to bfloat16 or float16, which rounds large steps (pytorch #75214, speculators #899).",
            "Optimizers keep it in different places, and code that converts between them looks in one (DeepSpeed "
            "#5289).",
        ),
        example="""
            from transformers import Trainer


            class CorrectsBiasAgain(Trainer):
                def _load_optimizer_and_scheduler(self, checkpoint):
                    super()._load_optimizer_and_scheduler(checkpoint)
                    if checkpoint is not None:
                        for state in self.optimizer.state.values():
                            state["step"].zero_()  # the moments are not those of step 0
            """,
        cure="""
            from transformers import Trainer


            class CorrectsBiasOnce(Trainer):
                def _load_optimizer_and_scheduler(self, checkpoint):
                    super()._load_optimizer_and_scheduler(checkpoint)
                    if checkpoint is not None:
                        for state in self.optimizer.state.values():
                            assert state["step"] == self.state.global_step
            """,
    ),
    FindingKind(
        code="RC403",
        component="optimizer-hyperparameters",
        title="the optimizer's options or parameter groups differ",
        advice="Restore param_groups with the optimizer, and build the groups in the same order with the same members.",
        meaning="A parameter group has another learning rate, weight decay or other option than in the uninterrupted "
        "run, or it has other members.",
        causes=(
            "A schedule that is constructed sets the rate of every group; where the optimizer was loaded before, the "
            "loaded rate is lost (pytorch #119168, #65342).",
            "Groups are matched by position, and are built in another order (pytorch #1489).",
            "Options that change during training are taken from the arguments again.",
            "The other way round: a new learning rate or weight decay has no effect, since the saved one is restored.",
        ),
        example="""
            from transformers import TrainerCallback


            class RaisesDecay(TrainerCallback):
                def on_train_begin(self, args, state, control, **kwargs):
                    for group in kwargs["optimizer"].param_groups:
                        group["weight_decay"] = args.weight_decay  # where the run began, not where it is

                def on_step_end(self, args, state, control, **kwargs):
                    for group in kwargs["optimizer"].param_groups:
                        group["weight_decay"] *= 1.1
            """,
        cure="""
            from transformers import TrainerCallback


            class RaisesDecay(TrainerCallback):
                def on_step_begin(self, args, state, control, **kwargs):
                    for group in kwargs["optimizer"].param_groups:
                        group["weight_decay"] = args.weight_decay * 1.1**state.global_step
            """,
    ),
    FindingKind(
        code="RC404",
        component="lr-scheduler",
        title="the learning-rate schedule is not restored",
        advice="Save and load the scheduler's state_dict, bind it to the optimizer that trains, and step it once per "
        "optimizer step.",
        meaning="The learning rate of a step is not what the uninterrupted run used at it: warmup starts again, the "
        "rate is a step ahead or behind, or no longer moves.",
        causes=(
            "The schedule's state is not loaded (Lightning #15462).",
            "What the rate is computed from is in a closure, which no state_dict holds (pytorch #52911).",
            "The schedule moves the groups of an optimizer that is no longer used (gpt-neox #1029).",
            "It is stepped once more on loading (slime #1547).",
            "The parts of a schedule in sequence start again (pytorch #162591).",
            "The count of evaluations without progress is not saved (timm #2756).",
            "The run is made longer, and the schedule is stretched over all of it (transformers #18070).",
        ),
        example="""
            from transformers import Trainer


            class MakesItsScheduleAgain(Trainer):
                def _load_optimizer_and_scheduler(self, checkpoint):
                    super()._load_optimizer_and_scheduler(checkpoint)
                    if checkpoint is not None:
                        self.lr_scheduler = None  # with the place that was just loaded
                        self.create_scheduler(self.state.max_steps)
            """,
        cure="""
            from transformers import Trainer


            class MakesItsScheduleAgain(Trainer):
                def _load_optimizer_and_scheduler(self, checkpoint):
                    if checkpoint is not None:
                        self.lr_scheduler = None
                        self.create_scheduler(self.state.max_steps)
                    super()._load_optimizer_and_scheduler(checkpoint)  # a new schedule sets rates, so it loads last
            """,
    ),
    FindingKind(
        code="RC405",
        component="grad-scaler",
        title="the gradient scaler is not restored",
        advice="Save and load scaler.state_dict() with the checkpoint.",
        meaning="Training in float16 goes on with the initial loss scale. The first resumed steps overflow and are "
        "left out, and where the schedule is not stepped for them either, the learning rate lags from then on.",
        causes=(
            "The scaler is not in the checkpoint (transformers #11663, mmcv #1013).",
            "It moved into another object in a refactoring, and is no longer saved (transformers #34053).",
            "The scale is restored without its count of steps since the last overflow, so that it grows at another "
            "step.",
        ),
        example="""
            from transformers import Trainer


            class FindsItsScaleAgain(Trainer):  # trains with fp16=True
                def _save_scaler(self, output_dir):
                    pass  # the first resumed steps overflow until the scale fits
            """,
        cure="""
            from transformers import Trainer


            class KeepsItsScale(Trainer):  # trains with fp16=True
                def _save_scaler(self, output_dir):
                    super()._save_scaler(output_dir)
            """,
    ),
    FindingKind(
        code="RC406",
        component="gradient-accumulation",
        title="accumulated gradients or the place in the window are lost",
        advice="Save only at the end of an accumulation window, or save the gradients and the micro-step too.",
        meaning="The checkpoint was written in the middle of an accumulation window. The gradients gathered so far are "
        "gone, or the windows after it begin at another micro-batch.",
        causes=(
            "A checkpoint at the end of an epoch falls into a window (transformers #22143).",
            "The count of micro-batches starts at 0 again, so that the windows shift (transgenic #53).",
        ),
        example="""
            def train(model, optimizer, batches, save, first=0, window=4):
                for number, batch in enumerate(batches[first:], first + 1):
                    model(**batch).loss.backward()
                    if number % 10 == 0:
                        save(number)  # in the middle of a window: the gradients of two batches are lost
                    if number % window == 0:
                        optimizer.step()
                        optimizer.zero_grad()
            """,
        cure="""
            def train(model, optimizer, batches, save, first=0, window=4):
                for number, batch in enumerate(batches[first:], first + 1):
                    model(**batch).loss.backward()
                    if number % window == 0:
                        optimizer.step()
                        optimizer.zero_grad()
                        if number % 12 == 0:
                            save(number)  # between two windows there is nothing to lose
            """,
    ),
)
