"""Runs whose bits are taken by means of their own (hooks of torch, SHA-256), with and without an observer.

`watch` trains in the process that calls it and returns the facts of the run; `watch_in_fork` does so in a fresh fork.
"""

import hashlib
import json
import multiprocessing
import random
from pathlib import Path

import numpy as np
import torch
from transformers.trainer_utils import IntervalStrategy

from resumecheck.adapters.contract import Saving
from resumecheck.adapters.loader_ids import LoaderIds
from resumecheck.adapters.recorder import Captures, Recorder
from resumecheck.adapters.transformers_trainer import TrainerAdapter
from resumecheck.trajectory import TrajectoryWriter
from tests.targets import plain

#: Optimizer steps of each target: 2 epochs of 7 batches, 2 batches to a step, a last step of one batch.
STEPS = 8
EVERY_STEP = frozenset(range(STEPS + 1))
NO_CHECKPOINT = Saving(own=False)


# --- targets ------------------------------------------------------------------------------------------------------


class DrawingRows(plain.Rows):
    """Rows that are changed by draws from the streams of the process that makes them: the worker's, if there is one."""

    def __getitem__(self, index):
        row = super().__getitem__(index)
        places = [random.randrange(12), np.random.randint(12), int(torch.randint(12, ()))]
        row["input_ids"][places] = torch.randint(5, 60, (3,))
        return row


class Normed(torch.nn.Module):
    """A network with buffers that each forward changes."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(64, 16)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(16, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.3), torch.nn.Linear(16, 3)
        )

    def forward(self, input_ids, attention_mask, labels):
        """Loss and logits."""
        logits = self.layers(self.embedding(input_ids).mean(dim=1))
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def build_drawing(output_dir, workers):
    """Dropout, draws in the data set, accumulation, and an evaluation after each epoch."""
    trainer = plain.make_trainer(
        output_dir,
        rows=DrawingRows(),
        gradient_accumulation_steps=2,
        dataloader_num_workers=workers,
    )
    trainer.args.eval_strategy, trainer.eval_dataset = IntervalStrategy.EPOCH, trainer.train_dataset
    return trainer


def build_normed(output_dir, workers):
    """Buffers that training changes, momentum, loader workers that outlive an epoch."""
    torch.manual_seed(0)
    return plain.make_trainer(
        output_dir,
        model=Normed(),
        rows=DrawingRows(),
        gradient_accumulation_steps=2,
        optim="sgd",
        optim_args="momentum=0.9",
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
    )


def build_embedding(output_dir, workers):
    """The embedding trainer, a subclass of `Trainer` with its own loader."""
    from tests.embedding import targets, tiny

    directory = Path(output_dir)
    tiny.write_encoder(directory / "encoder")
    tiny.write_rows(directory / "data" / "train.jsonl", tiny.rows(tiny.ROWS))
    return targets.build(directory / "output", directory=directory, dataloader_num_workers=workers)


TARGETS = {"drawing": build_drawing, "normed": build_normed, "embedding": build_embedding}


# --- observers ----------------------------------------------------------------------------------------------------


class Nothing:
    """Recording is off: stands where the adapter expects a recorder, and records nothing."""

    started = False

    def step_starts(self, step):
        """A step starts."""
        self.started = True

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


def unobserved(trainer, directory):
    """No observer at all."""
    trainer.train()


def wrappers(trainer, directory):
    """Every wrapper in place, nothing recorded."""
    _train(trainer, Nothing())


def ids_alone(trainer, directory):
    """The wrapper that reads sample ids, and nothing else."""
    ids = LoaderIds()
    ids.install()
    made = trainer.get_train_dataloader

    def train_dataloader():
        loader = made()
        ids.watch(loader)
        return loader

    trainer.get_train_dataloader = train_dataloader
    trainer.train()
    assert ids.next_ids() is not None, "the wrapper saw no batch"


def recorded(level="full", saving=NO_CHECKPOINT, recorder=Recorder, **captures):
    """Recorded at a level, with captures."""

    def observe(trainer, directory):
        adapter = TrainerAdapter(trainer, directory / "output")
        writer = TrajectoryWriter(directory / "record")
        observer = recorder(writer, adapter.live, level=level, captures=Captures(**captures))
        _train(trainer, observer, adapter, saving)
        observer.finish(adapter.finished_steps())
        writer.close()
        assert len((directory / "record" / "steps.jsonl").read_text().splitlines()) == STEPS + 1

    return observe


def _train(trainer, recorder, adapter=None, saving=NO_CHECKPOINT):
    adapter = adapter or TrainerAdapter(trainer, Path(trainer.args.output_dir))
    adapter.attach(recorder, saving, lambda length: None)
    adapter.train(None)


CAPTURES = {
    "census": {"census_at": EVERY_STEP},
    "live": {"live_at": EVERY_STEP},
    "trace": {"trace_at": EVERY_STEP},
    "batches": {"batches_after": 0},
    "gradients": {"gradients": dict.fromkeys(EVERY_STEP, ("bert.embeddings.word_embeddings.weight",))},
    "tensors": {"tensors": dict.fromkeys(EVERY_STEP, ("weights|parameter|classifier.weight",))},
    "end": {"live_at_end": True},
}

OBSERVERS = {
    "unobserved": unobserved,
    "wrappers": wrappers,
    "ids": ids_alone,
    "light": recorded("light"),
    "full": recorded("full"),
    **{name: recorded(**options) for name, options in CAPTURES.items()},
    "checkpoints": recorded(saving=Saving(own=False, at=frozenset({2, 4, 5}))),
    "everything": recorded(
        saving=Saving(own=True, at=frozenset({2, 4, 5})),
        **{key: value for options in CAPTURES.values() for key, value in options.items()},
    ),
}


# --- observers that disturb: what the test must see -----------------------------------------------------------------


class DrawsAtEnd(Recorder):
    """Draws from a stream when the last step is over: more than the data set may reject."""

    def draw(self):
        """The draw."""
        random.getrandbits(1000)

    def step_ends(self, step, epoch):
        """The end of a step."""
        super().step_ends(step, epoch)
        if step == STEPS:
            self.draw()


class DrawsNumpy(DrawsAtEnd):
    """From NumPy's."""

    def draw(self):
        """The draw."""
        np.random.random(16)


class DrawsTorch(DrawsAtEnd):
    """From torch's."""

    def draw(self):
        """The draw."""
        torch.rand(16)


class DrawsForLoader(Recorder):
    """Draws where an epoch's iterator is made, so that the workers are seeded differently."""

    def epoch_starts(self):
        """The draw."""
        super().epoch_starts()
        state = random.getstate(), np.random.get_state()
        torch.rand(())
        random.setstate(state[0])
        np.random.set_state(state[1])


class TouchesBatch(Recorder):
    """Changes the content of a batch."""

    def batch(self, content, ids):
        """One word."""
        super().batch(content, ids)
        content["input_ids"][0, 0] = 63 - content["input_ids"][0, 0]


class TouchesMoment(Recorder):
    """Changes one moment by one unit in the last place, after the last update."""

    def step_ends(self, step, epoch):
        """One moment."""
        super().step_ends(step, epoch)
        if step == STEPS:
            moment = next(iter(next(iter(self.live().optimizers.values())).state.values()))["exp_avg"].view(-1)
            moment[0] = torch.nextafter(moment[0], torch.tensor(9.0))


class TouchesWeight(Recorder):
    """Turns the sign of a zero weight, or changes a weight by one unit in the last place."""

    def step_ends(self, step, epoch):
        """One weight."""
        super().step_ends(step, epoch)
        if step == STEPS:
            weight = next(self.live().models["model"].parameters()).data.view(-1)
            weight[0] = -0.0 if weight[0] == 0 else torch.nextafter(weight[0], torch.tensor(9.0))


DISTURBERS = {
    kind.__name__: recorded(recorder=kind)
    for kind in (DrawsAtEnd, DrawsNumpy, DrawsTorch, DrawsForLoader, TouchesBatch, TouchesMoment, TouchesWeight)
}


# --- watching -----------------------------------------------------------------------------------------------------


def watch(target, observer, workers, directory):
    """Train in this process; facts of the run by name."""
    torch.set_num_threads(1)
    # A fork has its parent's streams; what Trainer does not seed must not be equal by accident.
    random.seed(1)
    np.random.seed(1)
    trainer = TARGETS[target](directory / "run", workers)
    seen = {"batches": [], "streams before each forward": [], "losses": []}

    def before_forward(module, args, kwargs):
        if module.training:
            seen["streams before each forward"].append(_streams())
            seen["batches"].append(_sha(kwargs))

    def after_forward(module, args, kwargs, output):
        if module.training:
            seen["losses"].append(_sha(output["loss"] if "loss" in output else dict(output)))

    trainer.model.register_forward_pre_hook(before_forward, with_kwargs=True)
    trainer.model.register_forward_hook(after_forward, with_kwargs=True)
    optimizer_made = trainer.create_optimizer
    gradients = seen["gradients"] = []

    def create_optimizer(*args, **kwargs):
        optimizer = optimizer_made(*args, **kwargs)
        optimizer.register_step_pre_hook(
            lambda *_: gradients.append(_sha({name: p.grad for name, p in trainer.model.named_parameters()}))
        )
        return optimizer

    trainer.create_optimizer = create_optimizer
    {**OBSERVERS, **DISTURBERS}[observer](trainer, directory)
    optimizer = trainer.optimizer
    logs = [
        {key: x for key, x in log.items() if "runtime" not in key and "second" not in key}
        for log in trainer.state.log_history
    ]
    return {
        **seen,
        "streams at the end": _streams(),
        "weights and buffers": {name: _sha(tensor) for name, tensor in trainer.model.state_dict().items()},
        "optimizer": [_sha(state) for state in getattr(optimizer, "optimizer", optimizer).state.values()],
        "schedule": _sha(trainer.lr_scheduler.state_dict()),
        "step": trainer.state.global_step,
        "logs": logs,
    }


def _sha(value):
    """SHA-256 of a tensor's type, shape and bytes, or of a mapping of tensors and numbers."""
    if isinstance(value, torch.Tensor):
        head = f"{value.dtype}{tuple(value.shape)}".encode()
        return hashlib.sha256(
            head + value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        ).hexdigest()
    if hasattr(value, "items"):
        return hashlib.sha256(
            "".join(f"{key}={_sha(item)};" for key, item in sorted(value.items())).encode()
        ).hexdigest()
    return repr(value)


def _streams():
    states = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False), "torch": torch.get_rng_state()}
    numpy_state = states["numpy"]["state"]
    texts = {
        "python": repr(states["python"]),
        "numpy": repr((numpy_state["key"].tolist(), numpy_state["pos"])),
        "torch": repr(states["torch"].tolist()),
    }
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def watch_in_fork(target, observer, workers, directory):
    """The facts of a run in a fresh fork of a server that has imported what it needs."""
    return facts_in_fork(watch, target, observer, workers, directory)


def facts_in_fork(watch, name, observer, workers, directory):
    """What `watch(name, observer, workers, directory)` returns in a fresh fork of a server that has its module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([watch.__module__, "transformers.models.bert.modeling_bert"])
    directory.mkdir(parents=True)
    process = context.Process(target=_write_facts, args=(watch, name, observer, workers, directory))
    process.start()
    process.join(120)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode == 0, f"the run of {name} with {observer} ended with {process.exitcode}"
    return json.loads((directory / "facts.json").read_text())


def _write_facts(watch, name, observer, workers, directory):
    multiprocessing.set_start_method("fork", force=True)  # Of loader workers, as in a script of one's own.
    (directory / "facts.json").write_text(json.dumps(watch(name, observer, workers, directory)))
