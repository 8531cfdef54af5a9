"""RC1xx: what the checkpoint holds, and what loading makes of it."""

from __future__ import annotations

from resumecheck.diagnose.findings.kind import FindingKind

KINDS: tuple[FindingKind, ...] = (
    FindingKind(
        code="RC101",
        component="weights",
        title="weights are not what the uninterrupted run has",
        advice="Compare the keys of the saved file with model.state_dict().keys(), load with strict=True, and load "
        "into the object that trains.",
        meaning="Right after loading, a parameter of the model has other bits than in the run that wrote the "
        "checkpoint. Moments, schedule and data go on as if nothing had happened, so the loss jumps or, where the "
        "difference is small, only drifts.",
        causes=(
            "Names in the file and in the model differ by the prefix of a wrapper, and a load that is not strict "
            "matches nothing (FlagEmbedding #1034).",
            "Optimizer and schedule are restored, the model is not (transformers #9818).",
            "The checkpoint is loaded into one model, while the loss holds and trains another (sentence-transformers "
            "#2648).",
            "A fresh adapter is wrapped around the loaded model (lerobot #3459).",
            "Tied tensors are saved once, and come back untied (transformers #38870).",
            "The model is saved while averaged weights are in its place (schnetpack #785).",
        ),
        example="""
            from pathlib import Path

            import torch
            from transformers import Trainer


            class SavesAsWrapped(Trainer):
                def _save(self, output_dir=None, state_dict=None):
                    weights = {f"module.{name}": tensor for name, tensor in self.model.state_dict().items()}
                    directory = Path(output_dir or self.args.output_dir)
                    directory.mkdir(parents=True, exist_ok=True)
                    torch.save(weights, directory / "weights.pt")

                def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
                    weights = torch.load(Path(resume_from_checkpoint) / "weights.pt")
                    self.model.load_state_dict(weights, strict=False)  # no name matches, and nothing says so
            """,
        cure="""
            from pathlib import Path

            import torch
            from transformers import Trainer


            class SavesAsNamed(Trainer):
                def _save(self, output_dir=None, state_dict=None):
                    directory = Path(output_dir or self.args.output_dir)
                    directory.mkdir(parents=True, exist_ok=True)
                    torch.save(self.model.state_dict(), directory / "weights.pt")

                def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
                    weights = torch.load(Path(resume_from_checkpoint) / "weights.pt")
                    self.model.load_state_dict(weights)  # strict: a name that does not match is an error
            """,
    ),
    FindingKind(
        code="RC102",
        component="buffers",
        title="a buffer is not restored",
        advice="Register it with persistent=True, or save and load it with the checkpoint.",
        meaning="A buffer of the model (a running mean, a queue, shadow weights) starts again with its initial value, "
        "or with an old one. Parameters are right, so the loss is nearly right too.",
        causes=(
            "It is registered with persistent=False, which leaves it out of every state_dict.",
            "What is saved is collected from named_parameters(), which has no buffers.",
            "Averaged weights are not saved (ace #349), or are overwritten on loading (Samudra #313).",
        ),
        example="""
            import torch


            class Centred(torch.nn.Module):
                def __init__(self, size):
                    super().__init__()
                    self.register_buffer("mean", torch.zeros(size), persistent=False)  # in no state_dict

                def forward(self, hidden):
                    if self.training:
                        self.mean.lerp_(hidden.detach().mean(0), 0.1)
                    return hidden - self.mean
            """,
        cure="""
            import torch


            class Centred(torch.nn.Module):
                def __init__(self, size):
                    super().__init__()
                    self.register_buffer("mean", torch.zeros(size))  # persistent: saved and loaded with the weights

                def forward(self, hidden):
                    if self.training:
                        self.mean.lerp_(hidden.detach().mean(0), 0.1)
                    return hidden - self.mean
            """,
    ),
    FindingKind(
        code="RC103",
        component="loss-parameters",
        title="parameters outside the model are trained but not restored",
        advice="Make them part of the model, or save and load the module that holds them with every checkpoint.",
        meaning="The optimizer trains parameters that are not in the model, in most cases those of a loss. A "
        "checkpoint holds their moments, but not their values: a resumed run continues old moments on fresh "
        "parameters.",
        causes=(
            "A loss with a learned temperature or classifier; only the model is saved (sentence-transformers #27, "
            "#783).",
            "The optimizer is built over the loss, so that its moments are in the checkpoint and its parameters are "
            "not (sentence-transformers #2881).",
        ),
        example="""
            import torch
            from transformers import Trainer


            class Temperature(torch.nn.Module):  # given as compute_loss_func
                def __init__(self):
                    super().__init__()
                    self.log_scale = torch.nn.Parameter(torch.tensor(0.5))

                def forward(self, outputs, labels, num_items_in_batch=None):
                    return torch.nn.functional.cross_entropy(outputs.logits * self.log_scale.exp(), labels)


            class TrainsItsLoss(Trainer):
                def create_optimizer(self, model=None):
                    if self.optimizer is None:
                        super().create_optimizer(model)
                        self.optimizer.add_param_group({"params": list(self.compute_loss_func.parameters())})
                    return self.optimizer
            """,
        cure="""
            import torch
            from transformers import Trainer


            class Temperature(torch.nn.Module):  # given as compute_loss_func
                def __init__(self):
                    super().__init__()
                    self.log_scale = torch.nn.Parameter(torch.tensor(0.5))

                def forward(self, outputs, labels, num_items_in_batch=None):
                    return torch.nn.functional.cross_entropy(outputs.logits * self.log_scale.exp(), labels)


            class TrainsItsLoss(Trainer):
                def __init__(self, *args, **kwargs):
                    super().__init__(*args, **kwargs)
                    self.model.loss = self.compute_loss_func  # part of the model: trained, saved and loaded with it
            """,
    ),
    FindingKind(
        code="RC104",
        component="dtype",
        title="a tensor came back with another data type",
        advice="Save and load state in the type it is trained in; cast after loading only where the uninterrupted run "
        "casts too.",
        meaning="A weight, buffer or moment has another data type than in the uninterrupted run, or the run computes "
        "in another one. The values may look the same to three digits; every update rounds differently from then on.",
        causes=(
            "optimizer.load_state_dict casts moments to the type of their parameter, float32 to bfloat16 for example "
            "(pytorch #43706).",
            "Weights are restored in half precision, while the float32 masters that train stay fresh (DeepSpeed #762).",
            "Only the loading code casts: a cast that belongs to inference, or a switch that a fresh start sets.",
        ),
        example="""
            import torch
            from transformers import Trainer


            class LoadsNarrow(Trainer):
                def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
                    super()._load_from_checkpoint(resume_from_checkpoint, model)
                    self.model.to(torch.bfloat16)  # only resumed runs train in bfloat16
            """,
        cure="""
            import torch
            from transformers import Trainer


            class TrainsNarrow(Trainer):
                def __init__(self, *args, **kwargs):
                    super().__init__(*args, **kwargs)
                    self.model.to(torch.bfloat16)  # every run does
            """,
    ),
    FindingKind(
        code="RC105",
        component="checkpoint-files",
        title="files of the checkpoint are missing or not its own",
        advice="Write checkpoints to a temporary directory and rename it when complete; refuse incomplete ones.",
        meaning="The directory that is loaded lacks files, or holds files of another save. Loading code that takes "
        "what it finds goes on with the rest, without an error. The state that the file held is named first (RC401 for "
        "optimizer.pt), and this finding says which file is not there.",
        causes=(
            "The run was killed while it saved, and the directory is chosen by its name (transformers #35782).",
            "The file is written under one name and looked for under another (transformers #25849).",
            "transformers 5 loads optimizer and schedule together or not at all, and says nothing where one file is "
            "missing.",
            "Rotation removes the newest checkpoint (transformers #11748).",
        ),
        example="""
            from pathlib import Path

            from transformers import TrainerCallback


            class KeepsCheckpointsSmall(TrainerCallback):
                def on_save(self, args, state, control, **kwargs):
                    # without this file the schedule is not loaded either
                    Path(args.output_dir, f"checkpoint-{state.global_step}", "optimizer.pt").unlink()
            """,
        cure="""
            from transformers import TrainingArguments

            arguments = TrainingArguments("out", save_total_limit=2)  # fewer checkpoints, each of them whole
            """,
    ),
    FindingKind(
        code="RC106",
        component="resume-failure",
        title="the run dies when it is resumed",
        advice="The exception and its place are in the message; it does not happen in the uninterrupted run.",
        meaning="The resumed run raises an exception that the uninterrupted run does not, while it loads or later.",
        causes=(
            "torch.load refuses the file of random streams with weights_only=True (transformers #40500).",
            "A file that used to be optional is required (transformers #29059).",
            "The model that is resumed trains another set of parameters than the optimizer in the checkpoint "
            "(transformers #35850).",
            "The number of processes has changed (transformers #14554).",
            "Code looks up what an earlier step of the same process has left.",
        ),
        example="""
            from transformers import TrainerCallback


            class WatchesTheRate(TrainerCallback):
                def __init__(self):
                    self.rates = {}

                def on_step_end(self, args, state, control, **kwargs):
                    step = state.global_step
                    self.rates[step] = kwargs["lr_scheduler"].get_last_lr()[0]
                    if step > 1 and self.rates[step] > self.rates[step - 1]:  # KeyError at the first resumed step
                        print("the rate rises at step", step)
            """,
        cure="""
            from transformers import TrainerCallback


            class WatchesTheRate(TrainerCallback):
                def __init__(self):
                    self.rates = {}

                def on_step_end(self, args, state, control, **kwargs):
                    step = state.global_step
                    self.rates[step] = kwargs["lr_scheduler"].get_last_lr()[0]
                    if self.rates[step] > self.rates.get(step - 1, self.rates[step]):
                        print("the rate rises at step", step)
            """,
    ),
    FindingKind(
        code="RC107",
        component="counters",
        title="counters of the trainer are not restored",
        advice="Keep them in TrainerState (or a stateful callback) and restore them with the checkpoint.",
        meaning="A count of the trainer (step, epoch, tokens seen, best metric, last step of the run) starts again or "
        "is off. What depends on it goes wrong: where the run ends, what is skipped, when it evaluates.",
        causes=(
            "The count is read under another name than it is written (DeepSpeed #120).",
            "The checkpoint is written before the batch is counted, and the batch is trained on twice (Lightning "
            "#18060).",
            "Steps per epoch are rounded down in one place and up in another (transformers #33455).",
            "The batch size that was found automatically is not saved, so the number of steps is computed anew "
            "(transformers #25956).",
            "Totals and counts of the session are mixed up (transformers #34567).",
            "Something is decided by the logged loss, which the Trainer averages since the last log or since its "
            "process started (transformers #9818): log every step, or average over what a checkpoint holds.",
        ),
        example="""
            from transformers import TrainerCallback


            class StopsAtItsBudget(TrainerCallback):  # needs include_num_input_tokens_seen
                budget = 480

                def on_train_begin(self, args, state, control, **kwargs):
                    state.num_input_tokens_seen = 0  # a resumed run has its budget again

                def on_step_end(self, args, state, control, **kwargs):
                    control.should_training_stop |= state.num_input_tokens_seen >= self.budget
            """,
        cure="""
            from transformers import TrainerCallback


            class StopsAtItsBudget(TrainerCallback):  # needs include_num_input_tokens_seen
                budget = 480

                def on_step_end(self, args, state, control, **kwargs):
                    # the trainer saves and restores this count
                    control.should_training_stop |= state.num_input_tokens_seen >= self.budget
            """,
    ),
)
