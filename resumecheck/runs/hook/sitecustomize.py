"""Records the optimizer steps of a command that knows nothing of resumecheck. Python imports it at its start.

This folder is put in front of PYTHONPATH, and RESUMECHECK_RECORD names where the record goes. The interpreter may be
another one than ours, so nothing but the standard library and the command's own torch is imported. A line of
`rows-PID.jsonl` is written when an optimizer is about to update: what it starts from, what led there, nothing changed.
RESUMECHECK_SNAPSHOTS and RESUMECHECK_KILL name steps after which the output directory is copied, or the process killed.
"""

from __future__ import annotations

import atexit
import functools
import gc
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))


class Record:
    """The record of this process; the first optimizer that updates counts the steps."""

    def __init__(self, torch: Any, directory: str) -> None:
        self.torch = torch
        self.directory = directory
        self.step = 0
        self.optimizer: Any = None
        self.models: list[Any] = []
        self.schedulers: list[Any] = []
        self.scalers: list[Any] = []
        self.batches: list[Any] = []
        self.losses: list[float] = []
        self.epoch_streams: dict[str, str] = {}
        self.snapshots = {int(step) for step in os.environ.get("RESUMECHECK_SNAPSHOTS", "").split(",") if step}
        self.kill = int(os.environ.get("RESUMECHECK_KILL", "-1"))
        self.process = os.getpid()
        self.fault = json.loads(os.environ.get("RESUMECHECK_FAULT") or "{}")
        self.events: Any = None

    def install(self) -> None:
        """Wrap torch's backward and loaders, and hear of each update."""
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
        from torch.utils.data import dataloader

        register_optimizer_step_pre_hook(self.before_step)
        if self.fault:
            register_optimizer_step_post_hook(self.after_step)
        torch, record = self.torch, self
        backward, iterator = torch.autograd.backward, dataloader._BaseDataLoaderIter
        original_next: Any = iterator.__next__
        original_init: Any = iterator.__init__

        def recorded_backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(tensors, torch.Tensor) and tensors.numel() == 1:
                record.losses.append(float(tensors.detach()))
            return backward(tensors, *args, **kwargs)

        def recorded_next(self: Any) -> Any:
            batch = original_next(self)
            record.batches.append(record.batch(batch))
            return batch

        def recorded_init(self: Any, *args: Any, **kwargs: Any) -> None:
            # The order of an epoch may be drawn here.
            record.epoch_streams = record.streams()
            original_init(self, *args, **kwargs)

        torch.autograd.backward = recorded_backward
        iterator.__init__ = recorded_init
        iterator.__next__ = recorded_next
        atexit.register(self.at_end)

    def before_step(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        """An optimizer's `step` is called; with a closure it goes forward and backward in there, before it updates."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self.before_update(optimizer)
            return None
        noted: list[bool] = []

        @functools.wraps(closure)
        def then_note() -> Any:
            result = closure()
            if not noted:  # it may be asked again
                noted.append(True)
                self.before_update(optimizer)
            return result

        if len(args) > 1:
            return (args[0], then_note, *args[2:]), kwargs
        return args, {**kwargs, "closure": then_note}

    def before_update(self, optimizer: Any) -> None:
        """An optimizer is about to update: everything of the steps before is over."""
        if os.getpid() != self.process or os.environ.get("RANK", "0") != "0":
            return
        if self.optimizer is None:
            self.optimizer = weakref.ref(optimizer)
            self.look_around(optimizer)
        if self.optimizer() is not optimizer:
            return
        done = self.step + int(os.environ.get("RESUMECHECK_FROM", "0"))
        if self.events is not None and self.events.active:
            self.events.stop()
        if done in self.snapshots:
            shutil.copytree(os.environ["RESUMECHECK_OUT"], os.path.join(self.directory, str(done)), symlinks=True)
        if done == self.kill:
            os.kill(self.process, signal.SIGKILL)
        self.step += 1
        names = self.names()
        gradients = {
            names.get(id(parameter), place): self.digest(parameter.grad)
            for place, parameter in named(optimizer)
            if parameter.grad is not None
        }
        facts: dict[str, Any] = {"step": done + 1, "lr": [float(group["lr"]) for group in optimizer.param_groups]}
        facts |= {"batches": self.batches, "losses": self.losses, "streams": self.streams(), "gradients": gradients}
        facts["epoch_streams"], self.epoch_streams = self.epoch_streams, {}
        self.write({**facts, "state": self.state(optimizer)})
        self.batches, self.losses = [], []

    def after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """An optimizer has updated: what the files are changed by from now on belongs to the save after this step."""
        if self.optimizer is not None and self.optimizer() is optimizer and self.step == self.fault["step"]:
            self.events.start()

    def at_end(self) -> None:
        """The process ends by itself: what the last update has made."""
        if self.events is not None:
            self.events.stop()
        optimizer = self.optimizer() if self.optimizer is not None and os.getpid() == self.process else None
        if optimizer is not None:
            self.write({"step": None, "state": self.state(optimizer)})

    def write(self, facts: dict[str, Any]) -> None:
        """One line, on disk before the update."""
        with open(os.path.join(self.directory, f"rows-{self.process}.jsonl"), "a", encoding="utf-8") as rows:
            rows.write(json.dumps(facts) + "\n")

    def look_around(self, optimizer: Any) -> None:
        """What belongs to the optimizer among all objects: models that it trains, schedules and gradient scalers."""
        torch = self.torch
        trained = {id(parameter) for _, parameter in named(optimizer)}
        models: list[Any] = []
        scaler = getattr(getattr(torch, "amp", None), "GradScaler", ())
        for each in gc.get_objects():
            kind = type(each)  # not isinstance: that asks proxies, which may import what they stand for
            if issubclass(kind, torch.nn.Module):
                if any(id(parameter) in trained for parameter in each.parameters()):
                    models.append(each)
            elif issubclass(kind, torch.optim.lr_scheduler.LRScheduler):
                if getattr(each, "optimizer", None) is optimizer:
                    self.schedulers.append(weakref.ref(each))
            elif issubclass(kind, scaler):
                self.scalers.append(weakref.ref(each))
        inner = {id(part) for model in models for part in model.modules() if part is not model}
        self.models = [weakref.ref(model) for model in models if id(model) not in inner]

    # --- digests ----------------------------------------------------------------------------------------------------

    def state(self, optimizer: Any) -> dict[str, dict[str, str]]:
        """Weights, buffers and the optimizer's state by name, as component -> quantity|name -> digest."""
        found: dict[str, dict[str, str]] = {name: {} for name in ("weights", "buffers")}
        found |= {name: {} for name in ("optimizer-moments", "optimizer-step", "optimizer-hyperparameters")}
        names = self.names()
        for place, parameter in named(optimizer):
            name = names.get(id(parameter), place)
            found["weights"][f"parameter|{name}"] = self.digest(parameter)
            for quantity, value in optimizer.state.get(parameter, {}).items():
                component = "optimizer-step" if quantity == "step" else "optimizer-moments"
                found[component][f"{quantity}|{name}"] = self.digest(value)
        for start, model in self.live_models():
            hidden = {
                f"{inside}.{name}" if inside else name
                for inside, module in model.named_modules()
                for name in getattr(module, "_non_persistent_buffers_set", ())
            }
            for name, buffer in model.named_buffers():
                kind = "non-persistent buffer" if name in hidden else "buffer"
                found["buffers"][f"{kind}|{start}{name}"] = self.digest(buffer)
        for index, group in enumerate(optimizer.param_groups):
            for option, value in group.items():
                if option not in ("params", "lr", "initial_lr"):
                    found["optimizer-hyperparameters"][f"{option}|group {index}"] = f"={value!r}"
        for component, holders in (("lr-scheduler", self.schedulers), ("grad-scaler", self.scalers)):
            states = [holder().state_dict() for holder in holders if holder() is not None]
            for index, state in enumerate(states):
                for name, value in state.items():
                    if plain(value):
                        key = f"{name}|{name}" if len(states) == 1 else f"{name}|[{index}].{name}"
                        found.setdefault(component, {})[key] = f"={value!r}"
        return found

    def live_models(self) -> list[tuple[str, Any]]:
        """The models that are trained, and how the names of their tensors begin."""
        models = [model() for model in self.models if model() is not None]
        return [("" if len(models) == 1 else f"[{index}].", model) for index, model in enumerate(models)]

    def names(self) -> dict[int, str]:
        """The id of each parameter of a model -> its name."""
        names: dict[int, str] = {}
        for start, model in self.live_models():
            for name, parameter in model.named_parameters():
                names.setdefault(id(parameter), start + name)
        return names

    def streams(self) -> dict[str, str]:
        """The random streams, where the process has them."""
        found = {"rng-python": hashed(repr(random.getstate()).encode())}
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            _, keys, *rest = numpy.random.get_state()
            found["rng-numpy"] = hashed(keys.tobytes() + repr(rest).encode())
        found["rng-torch"] = hashed(self.torch.get_rng_state().numpy().tobytes())
        if self.torch.cuda.is_available() and self.torch.cuda.is_initialized():
            states = self.torch.cuda.get_rng_state_all()
            found["rng-cuda"] = hashed(b"".join(state.numpy().tobytes() for state in states))
        return {name: f"stream#{text}" for name, text in found.items()}

    def batch(self, batch: Any) -> list[Any]:
        """The digest of a batch, and one of each sample where its tensors have as many rows."""
        tensors = list(self.tensors(batch))
        whole = hashed("".join(self.digest(tensor) for tensor in tensors).encode())
        lengths = {len(tensor) if tensor.dim() else 0 for tensor in tensors}
        if len(lengths) != 1:
            return [f"batch#{whole}", None]
        rows = range(lengths.pop())
        return [f"batch#{whole}", [hashed("".join(self.digest(t[row]) for t in tensors).encode()) for row in rows]]

    def tensors(self, value: Any) -> Iterator[Any]:
        """The tensors of a nested batch."""
        if isinstance(value, self.torch.Tensor):
            yield value
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from self.tensors(item)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from self.tensors(item)

    def digest(self, value: Any) -> str:
        """Type, shape and a hash of the bytes; of one element the value itself."""
        if not isinstance(value, self.torch.Tensor):
            return f"={value!r}" if isinstance(value, bool | int | float) else f"#{hashed(repr(value).encode())}"
        kind = f"{str(value.dtype).removeprefix('torch.')}[{','.join(map(str, value.shape))}]"
        value = value.detach()
        if value.layout is not self.torch.strided:
            value = value.to_dense()
        if value.numel() == 1:
            return f"{kind}={value.item()!r}"
        flat = value.cpu().contiguous().reshape(-1).view(self.torch.uint8)
        return f"{kind}#{hashed(flat.numpy().tobytes())}"


def named(optimizer: Any) -> Iterator[tuple[str, Any]]:
    """The parameters of an optimizer by their place in it, which is their name where no model has them."""
    for index, group in enumerate(optimizer.param_groups):
        for position, parameter in enumerate(group["params"]):
            yield f"param_groups[{index}].params[{position}]", parameter


def plain(value: Any) -> bool:
    """Numbers and texts, and lists and mappings of such: what says the same in every process."""
    if isinstance(value, list | tuple):
        return all(plain(item) for item in value)
    if isinstance(value, dict):
        return all(plain(item) for pair in value.items() for item in pair)
    return value is None or isinstance(value, bool | int | float | str)


def hashed(content: bytes) -> str:
    """128 bits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class AfterTorch:
    """A finder that lets torch be imported as ever, and starts the record when that is done."""

    def __init__(self, events: Any) -> None:
        self.events = events

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Only for torch itself, once."""
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def then_record(module: Any) -> None:
            execute(module)
            record = Record(module, os.environ["RESUMECHECK_RECORD"])
            record.events = self.events
            record.install()

        loader.exec_module = then_record
        return spec


def run_the_other() -> None:
    """The environment may have a sitecustomize of its own, which this one hides."""
    places = [place for place in sys.path if os.path.abspath(place or ".") != HERE]
    other = importlib.machinery.PathFinder.find_spec("sitecustomize", places)
    if other is not None and other.loader is not None:
        other.loader.exec_module(importlib.util.module_from_spec(other))


def watched_files() -> Any:
    """What counts the events in the output directory, where a save is to be watched or killed.

    It is there before anything else is imported, so that nothing has taken a function of `os` that is not wrapped.
    """
    if not os.environ.get("RESUMECHECK_FAULT"):
        return None
    fault = json.loads(os.environ["RESUMECHECK_FAULT"])
    folder = os.path.join(os.path.dirname(HERE), "faults")
    place = os.path.join(folder, "__init__.py")
    spec = importlib.util.spec_from_file_location("resumecheck_faults", place, submodule_search_locations=[folder])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    record = os.path.join(os.environ["RESUMECHECK_RECORD"], "file-events.json")
    return module.FileEvents(os.environ["RESUMECHECK_OUT"], fault["event"], fault["torn"], record=record, active=False)


if os.environ.get("RESUMECHECK_RECORD"):
    sys.meta_path.insert(0, AfterTorch(watched_files()))
    run_the_other()
