"""`transformers.Trainer`: what a `checkpoint-N` holds, and what `train(resume_from_checkpoint=...)` does without it.

Source: transformers 5.23.0, trainer.py (`_load_from_checkpoint`, `_load_optimizer_and_scheduler`, `_load_rng_state`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from resumecheck.checkpoints.diagnosis import Loss, Problem
from resumecheck.checkpoints.layouts.distributed_checkpoint import sharded_problems
from resumecheck.checkpoints.layouts.layout import (
    MODEL,
    OPTIMIZER,
    RNG,
    Contents,
    Layout,
    Need,
    Piece,
    count,
    counts,
    mapping,
    missing_ranks,
    optimizer_step,
    sequence,
)
from resumecheck.checkpoints.reading.pickles import Call
from resumecheck.checkpoints.reading.torch_file import TorchFile

NAME = re.compile(r"checkpoint-(\d{1,15})")
STATE = "trainer_state.json"
ARGUMENTS = "training_args.bin"

_WEIGHTS = (
    r"([^/]+/)?(model|adapter_model|diffusion_pytorch_model)(-\d+-of-\d+)?\.safetensors|[^/]*\.safetensors\.index\.json"
    r"|([^/]+/)?(pytorch_model|adapter_model)(-\d+-of-\d+)?\.bin|pytorch_model_fsdp(_\d+)?/.*|pytorch_model_fsdp\.bin"
    r"|global_step\d+/.*model_states\.pt"
)
_OPTIMIZER = r"optimizer\.(pt|bin)|optimizer_\d+/.*|global_step\d+/.*optim_states\.pt|rank\d+-of-\d+-optimizer\.pt"

PIECES = (
    Piece(r"([^/]+/)?[^/]*\.safetensors", MODEL, "the weights", "safetensors"),
    Piece(r"([^/]+/)?(pytorch_model|adapter_model)[^/]*\.bin", MODEL, "the weights", "torch"),
    Piece(r"[^/]*\.index\.json", (), "which weights are in which file", "json"),
    Piece(r"optimizer\.(pt|bin)", OPTIMIZER, "the optimizer", "torch"),
    Piece(r"scheduler\.pt", ("lr-scheduler",), "the learning-rate schedule", "torch"),
    Piece(r"scaler\.pt", ("grad-scaler",), "the loss scale", "torch"),
    Piece(r"rng_state(_\d+)?\.pth", RNG, "the random streams", "torch"),
    Piece(r"trainer_state\.json", ("counters", "data-position", "callbacks"), "step, epoch, callbacks", "json"),
    Piece(r"training_args\.bin", ("arguments",), "the arguments; no resume reads them", "torch", objects=True),
    Piece(r"(config|generation_config|adapter_config|tokenizer_config)\.json", (), "configuration", "json"),
    Piece(r"pytorch_model_fsdp(_\d+)?/\.metadata", (), "what is in which shard of the weights", "torch", objects=True),
    Piece(r"pytorch_model_fsdp(_\d+)?/.*\.distcp", MODEL, "a shard of the weights"),
    Piece(r"optimizer_\d+/\.metadata", (), "what is in which shard of the optimizer", "torch", objects=True),
    Piece(r"optimizer_\d+/.*\.distcp", OPTIMIZER, "a shard of the optimizer"),
    Piece(r"global_step\d+/.*model_states\.pt", MODEL, "the weights (DeepSpeed)", "torch", objects=True),
    Piece(r"global_step\d+/.*optim_states\.pt", OPTIMIZER, "a shard of the optimizer", "torch", objects=True),
)

NEEDS = (
    Need("model.safetensors", _WEIGHTS, MODEL, False, "the resume fails: no weights are found"),
    Need(
        "optimizer.pt",
        _OPTIMIZER,
        (*OPTIMIZER, "lr-scheduler"),
        True,
        "the Trainer loads optimizer and schedule only where both files are there, and says nothing",
    ),
    Need(
        "scheduler.pt",
        r"scheduler\.pt|global_step\d+/.*model_states\.pt",  # DeepSpeed saves a schedule of its own
        ("lr-scheduler", *OPTIMIZER),
        True,
        "the Trainer loads optimizer and schedule only where both files are there, and says nothing",
    ),
    Need("rng_state.pth", r"rng_state(_\d+)?\.pth", RNG, True, "the Trainer goes on with new random streams"),
    Need(
        STATE,
        r"trainer_state\.json",
        ("counters", "data-position", "callbacks"),
        False,
        "the resume fails: step and epoch are not known",
    ),
)


def bears_marks(contents: Contents) -> bool:
    """The files of a Trainer, or the name of its checkpoints."""
    if contents.has(r"trainer_state\.json|training_args\.bin") and not contents.has(r"random_states_\d+\.pkl"):
        return True
    return NAME.fullmatch(contents.path.name) is not None


def arguments_of(contents: Contents) -> tuple[str, dict[Any, Any]]:
    """The class of the training arguments, as module.name, and their values."""
    file = contents.values.get(ARGUMENTS)
    call = file.value if isinstance(file, TorchFile) else None
    if not isinstance(call, Call):
        return "", {}
    return str(call.target), mapping(call.state)


def find_steps(contents: Contents) -> dict[str, int]:
    """The counts in the name, in trainer_state.json, in the optimizer and in the schedule."""
    match = NAME.fullmatch(contents.path.resolve().name)
    found = counts(name=int(match[1])) if match else {}
    found |= counts(**{STATE: mapping(contents.values.get(STATE)).get("global_step")})
    for name in contents.matching(r"optimizer\.(pt|bin)"):
        file = contents.values.get(name)
        if isinstance(file, TorchFile):
            found |= counts(**{name: optimizer_step(file, file.value)})
    schedule = contents.values.get("scheduler.pt")
    if isinstance(schedule, TorchFile):
        state = mapping(schedule.value)
        if "num_bad_epochs" not in state:  # ReduceLROnPlateau counts evaluations
            found |= counts(**{"scheduler.pt": schedule.number(state.get("last_epoch"))})
    return found


def find_problems(contents: Contents) -> Iterator[Problem]:
    """Counts that contradict each other, ranks and shards that are missing, parameters that no file holds."""
    yield from _disagreements(contents)
    yield from missing_ranks(contents, r"rng_state_(\d{1,9})\.pth", "the random streams")
    yield from _shards(contents)
    yield from sharded_problems(contents)
    if contents.has(r"global_step\d+/.*") and not contents.has("latest"):
        message = "latest is missing: DeepSpeed loads nothing without it, and the resume fails"
        yield Problem("missing", "latest", message)
    trained, stored = _trained(contents), _stored(contents)
    if trained is not None and stored is not None and trained > stored:
        message = f"the optimizer trains {trained} parameters, the checkpoint holds {stored} tensors"
        yield Problem(
            "missing", "", f"{message}: {trained - stored} or more of the loss or another module are not in it"
        )


def _disagreements(contents: Contents) -> Iterator[Problem]:
    steps = find_steps(contents)
    run = steps.get(STATE)
    if run is None:
        return
    if steps.get("name", run) != run:
        yield Problem("disagreement", STATE, f"{STATE} is at step {run}, the directory's name says {steps['name']}")
    skips = contents.has(r"scaler\.pt")  # with a loss scale, a step that overflows counts for neither
    for name in ("optimizer.pt", "optimizer.bin", "scheduler.pt"):
        other = steps.get(name, run)
        if other > run or (other < run and not skips):
            yield Problem("disagreement", name, f"{name} is at step {other}, {STATE} at step {run}")


def _shards(contents: Contents) -> Iterator[Problem]:
    for index in contents.matching(r"[^/]*\.index\.json"):
        shards = mapping(mapping(contents.values.get(index)).get("weight_map")).values()
        present = set(contents.names)
        for shard in sorted({str(shard) for shard in shards}):
            if "/" in shard or "\\" in shard or shard in ("", ".", ".."):
                yield Problem("code", index, f"{index} names a file outside the checkpoint: {shard[:80]!r}")
            elif shard not in present:
                yield Problem("missing", shard, f"{shard[:80]} is missing: {index} says that it holds weights")


def _trained(contents: Contents) -> int | None:
    for name in contents.matching(r"optimizer\.(pt|bin)"):
        file = contents.values.get(name)
        if isinstance(file, TorchFile):
            groups = sequence(mapping(file.value).get("param_groups"))
            return sum(len(sequence(mapping(group).get("params"))) for group in groups)
    return None


def _stored(contents: Contents) -> int | None:
    headers = [contents.values.get(name) for name in contents.matching(r".*\.safetensors")]
    other = contents.has(r".*\.distcp|global_step.*|(.*/)?(pytorch_model|adapter_model).*\.bin|.*_linear\.pt")
    if other or not headers or any(header is None for header in headers):
        return None
    return sum(len(mapping(header)) for header in headers)


def find_losses(contents: Contents) -> Iterator[Loss]:
    """What a resume does not bring back although the files are whole."""
    arguments = arguments_of(contents)[1]
    trained, stored = _trained(contents), _stored(contents)
    if trained is not None and stored is not None and trained > stored:
        why = "parameters outside the model are trained; their moments are saved, they themselves are not"
        yield Loss("loss-parameters", "never saved", True, why)
    if arguments.get("fp16") is True and not contents.has(r"scaler\.pt|global_step.*"):
        yield Loss("grad-scaler", "missing", True, "the run uses fp16, and there is no scaler.pt")
    if arguments.get("ignore_data_skip") is True:
        why = "ignore_data_skip is set: the resumed run starts the epoch's data anew"
        yield Loss("data-position", "not restored", True, why)
    why = "what a data set or collator draws from a global stream: batches are fetched before the streams are put back"
    yield Loss("data-content", "not restored", True, why)
    stateful = mapping(mapping(contents.values.get(STATE)).get("stateful_callbacks"))
    names = [str(name)[:60] for name in stateful if name != "TrainerControl"]
    if names and arguments.get("restore_callback_states_from_checkpoint") is not True:
        why = f"saved for {', '.join(names[:3])}, but put back only with restore_callback_states_from_checkpoint"
        yield Loss("callbacks", "not restored", True, why)
    yield Loss(
        "hidden-state",
        "never saved",
        True,
        "attributes of the model, data set, collator and callbacks, and private generators, where the run uses any",
    )


def find_remarks(contents: Contents) -> Iterable[str]:
    """Whether it is the end of the run already."""
    state = mapping(contents.values.get(STATE))
    step, last = count(state.get("global_step")), count(state.get("max_steps"))
    if step is not None and last is not None and 0 < last <= step:
        yield f"the run is over: step {step} of {last}; a resume trains nothing more unless the run is made longer"
    ranks = len(contents.matching(r"rng_state_\d+\.pth"))
    if ranks:
        yield f"written by {ranks} processes: resume with as many, else random streams and data differ"


def resume(path: Path) -> str:
    """The call."""
    return f"trainer.train(resume_from_checkpoint={str(path)!r})"


INSTEAD = (
    "Give the checkpoint itself, not the directory above it; and never as the model's name or path: that starts a new "
    "run from its weights, at step 0, with a new optimizer and schedule."
)

LAYOUT = Layout(
    framework="transformers",
    marks=bears_marks,
    pieces=PIECES,
    needs=NEEDS,
    steps=find_steps,
    resume=resume,
    problems=find_problems,
    losses=find_losses,
    remarks=find_remarks,
    instead=INSTEAD,
)
