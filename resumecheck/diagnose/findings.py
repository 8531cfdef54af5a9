"""The table of findings: one place for the stable code, the component, what it means and what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

from resumecheck.verdict import Finding, Status


@dataclasses.dataclass(frozen=True)
class FindingKind:
    """A kind of finding."""

    code: str
    component: str
    title: str
    advice: str


KINDS: tuple[FindingKind, ...] = (
    FindingKind("RC101", "weights", "weights are not what the uninterrupted run has",
        "Compare the keys of the saved file with model.state_dict().keys(), load with strict=True, and load into the object that trains."),
    FindingKind("RC102", "buffers", "a buffer is not restored",
        "Register it with persistent=True, or save and load it with the checkpoint."),
    FindingKind("RC103", "loss-parameters", "parameters outside the model are trained but not restored",
        "Make them part of the model, or save and load the module that holds them with every checkpoint."),
    FindingKind("RC104", "dtype", "a tensor came back with another data type",
        "Save and load state in the type it is trained in; cast after loading only where the uninterrupted run casts too."),
    FindingKind("RC105", "checkpoint-files", "files of the checkpoint are missing or not its own",
        "Write checkpoints to a temporary directory and rename it when complete; refuse incomplete ones."),
    FindingKind("RC106", "resume-failure", "the run dies when it is resumed",
        "The exception and its place are in the message; it does not happen in the uninterrupted run."),
    FindingKind("RC107", "counters", "counters of the trainer are not restored",
        "Keep them in TrainerState (or a stateful callback) and restore them with the checkpoint."),
    FindingKind("RC201", "data-order", "the samples come in another order",
        "Make the order a pure function of (seed, epoch), and set the epoch on the sampler that is really iterated."),
    FindingKind("RC202", "data-position", "the run takes up the data at another place",
        "Count what was consumed in the unit that is skipped (micro-batches, not optimizer steps), and skip exactly that."),
    FindingKind("RC204", "data-content", "the same samples arrive with other content",
        "Draw augmentation and negatives from a generator keyed by (seed, epoch, sample id), never from a global stream."),
    FindingKind("RC301", "rng-python", "Python's random stream is not restored",
        "Save random.getstate() with the checkpoint and restore it after the data is skipped, before the first forward."),
    FindingKind("RC302", "rng-numpy", "NumPy's global random stream is not restored",
        "Save numpy.random.get_state() with the checkpoint and restore it before the first forward, or use a keyed Generator."),
    FindingKind("RC303", "rng-torch", "torch's random stream is not restored",
        "Save torch.get_rng_state() with the checkpoint, restore it before the first forward, and reseed nothing after that."),
    FindingKind("RC304", "rng-cuda", "torch's CUDA random streams are not restored",
        "Save torch.cuda.get_rng_state_all() with the checkpoint and restore it before the first forward."),
    FindingKind("RC401", "optimizer-moments", "the optimizer's moments are not restored, or not to the right parameters",
        "Save and load optimizer.state_dict() unchanged, with parameters in the same order."),
    FindingKind("RC402", "optimizer-step", "the optimizer's step counts are not restored",
        "Keep `step` in the optimizer state, as float32 or wider; bias correction depends on it."),
    FindingKind("RC403", "optimizer-hyperparameters", "the optimizer's options or parameter groups differ",
        "Restore param_groups with the optimizer, and build the groups in the same order with the same members."),
    FindingKind("RC404", "lr-scheduler", "the learning-rate schedule is not restored",
        "Save and load the scheduler's state_dict, bind it to the optimizer that trains, and step it once per optimizer step."),
    FindingKind("RC405", "grad-scaler", "the gradient scaler is not restored",
        "Save and load scaler.state_dict() with the checkpoint."),
    FindingKind("RC406", "gradient-accumulation", "accumulated gradients or the place in the window are lost",
        "Save only at the end of an accumulation window, or save the gradients and the micro-step too."),
    FindingKind("RC501", "hidden-state", "the run depends on state that no checkpoint holds",
        "Keep it in a buffer or in a Stateful part that is saved and loaded, or compute it from state.global_step."),
    FindingKind("RC502", "callbacks", "the state of a callback is not restored",
        "Make the callback an ExportableState and set restore_callback_states_from_checkpoint=True, or derive its state."),
    FindingKind("RC601", "saving", "writing a checkpoint changes the run that writes it",
        "Saving must draw from no random stream and leave weights, moments and modes as they are."),
    FindingKind("RC602", "nondeterminism", "the uninterrupted run does not repeat itself",
        "Seed every stream, take no order from a set, use deterministic kernels; until then resume cannot be judged bitwise."),
    FindingKind("RC701", "arguments", "the resumed run trains with other arguments",
        "Give the same arguments on resume; what build() derives from the environment or the output directory must not change."),
)  # fmt: skip

BY_COMPONENT: dict[str, FindingKind] = {kind.component: kind for kind in KINDS}


def finding(component: str, status: Status, detail: str, **evidence: Any) -> Finding:
    """A finding of the kind that belongs to a component."""
    kind = BY_COMPONENT[component]
    message = f"{kind.title}: {detail}" if detail else kind.title
    return Finding(kind.code, component, status, message, kind.advice, evidence)
