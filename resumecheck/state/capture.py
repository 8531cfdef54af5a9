"""The leaves of a live training state, by component, quantity and name.

An adapter shows a `LiveState`; `leaves` yields every value that the next step depends on and that a checkpoint could
hold. Optimizer state is named after the parameter it belongs to, never after its position: two parameters of one shape
that swap their moments are then seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from resumecheck.state.device_digest import Transfer
from resumecheck.state.digest import digest, digest_into, flatten
from resumecheck.state.units import is_plain


@dataclasses.dataclass
class LiveState:
    """The live objects of a run, as an adapter finds them.

    Attributes:
        models: the trained modules by name; the first is the model.
        optimizers: `torch.optim.Optimizer` objects, unwrapped.
        schedulers: learning-rate schedules (anything with `state_dict`).
        scaler: the gradient scaler, None where there is none.
        counters: the trainer's counters that a checkpoint holds.
        callbacks: the declared state of stateful callbacks.
        roots: where the census starts: name -> object.
        outside_names: id of a parameter that belongs to no model -> the path under which the census finds it.
    """

    models: dict[str, torch.nn.Module]
    optimizers: dict[str, Any]
    schedulers: dict[str, Any]
    scaler: Any = None
    counters: dict[str, Any] = dataclasses.field(default_factory=dict)
    callbacks: dict[str, Any] = dataclasses.field(default_factory=dict)
    roots: dict[str, Any] = dataclasses.field(default_factory=dict)
    outside_names: dict[int, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One value of the training state."""

    component: str
    quantity: str
    name: str
    value: Any

    @property
    def key(self) -> str:
        """The key of the leaf inside its component."""
        return f"{self.quantity}|{self.name}"


def leaves(live: LiveState) -> Iterator[Leaf]:
    """Every leaf of the state, in the order of the components table."""
    for model_name, model in live.models.items():
        prefix = "" if len(live.models) == 1 else f"{model_name}."
        yield from _module_leaves(model, prefix)
    names = parameter_names(live)
    for name, parameter in _parameters_outside(live, names):
        yield Leaf("loss-parameters", "parameter", name, parameter)
        if parameter.grad is not None:
            # The trainer zeroes the gradients of its model only: these may be carried from step to step.
            yield Leaf("gradient-accumulation", "grad", name, parameter.grad)
    for optimizer_name, optimizer in live.optimizers.items():
        prefix = "" if len(live.optimizers) == 1 else f"{optimizer_name}."
        yield from _optimizer_leaves(optimizer, names, prefix, has_scheduler=bool(live.schedulers))
    for scheduler_name, scheduler in live.schedulers.items():
        yield from _scheduler_leaves(scheduler, "" if len(live.schedulers) == 1 else f"{scheduler_name}.")
    if live.scaler is not None:
        for path, leaf in flatten(live.scaler.state_dict()):
            yield Leaf("grad-scaler", "scaler", path, leaf)
    for name, value in live.counters.items():
        yield Leaf("counters", "counter", name, value)
    for name, state in live.callbacks.items():
        for path, leaf in flatten(state):
            yield Leaf("callbacks", "callback", f"{name}{path}", leaf)


def digest_leaves(
    live: LiveState,
    transfer: Transfer | None = None,
    choose: Callable[[list[Leaf]], Iterable[Leaf]] = iter,
) -> dict[str, dict[str, str]]:
    """Component -> key -> digest of every leaf, or of those that `choose` returns.

    With a transfer, digests that are computed on a device are there once it is fetched. Leaves that `flatten` made are
    digests already.
    """
    own = Transfer() if transfer is None else transfer
    result: dict[str, dict[str, str]] = {}
    for leaf in choose(list(leaves(live))):
        component = result.setdefault(leaf.component, {})
        if isinstance(leaf.value, str) and leaf.component in _FLATTENED:
            component[leaf.key] = leaf.value
        else:
            digest_into(component, leaf.key, leaf.value, own)
    if transfer is None:
        own.fetch()
    return result


#: The fact that counts parameters which are trained but belong to no model.
OUTSIDE = "in an optimizer but in no model"

#: The quantity of a buffer that no checkpoint holds; it may be a cache that each forward makes anew.
NON_PERSISTENT = "non-persistent buffer"

#: Components whose leaves come out of `flatten` as digests.
_FLATTENED = {"grad-scaler", "callbacks", "lr-scheduler", "optimizer-hyperparameters"}


def _module_leaves(model: torch.nn.Module, prefix: str) -> Iterator[Leaf]:
    for name, parameter in model.named_parameters():
        yield Leaf("weights", "parameter", prefix + name, parameter)
        if parameter.grad is not None:
            yield Leaf("gradient-accumulation", "grad", prefix + name, parameter.grad)
        if not parameter.requires_grad:
            yield Leaf("hidden-state", "frozen", prefix + name, True)
    # Read from the modules, not from state_dict(): a target may have overridden that, with side effects.
    hidden = {
        f"{module_name}.{name}" if module_name else name
        for module_name, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    }
    for name, buffer in model.named_buffers():
        yield Leaf("buffers", NON_PERSISTENT if name in hidden else "buffer", prefix + name, buffer)


def trained_parameters(live: LiveState) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter of the models, then those that only an optimizer holds, by name."""
    names = parameter_names(live)
    for model in live.models.values():
        for parameter in model.parameters():
            yield names[id(parameter)], parameter
    yield from _parameters_outside(live, names)


def parameter_names(live: LiveState) -> dict[int, str]:
    """The id of each parameter of the models -> its name; tied parameters by their first name."""
    names: dict[int, str] = {}
    for model_name, model in live.models.items():
        prefix = "" if len(live.models) == 1 else f"{model_name}."
        for name, parameter in model.named_parameters():
            names.setdefault(id(parameter), prefix + name)
    return names


def _parameters_outside(live: LiveState, names: dict[int, str]) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters that an optimizer trains and no model holds; they get their census path or position as a name."""
    for optimizer_name, optimizer in live.optimizers.items():
        for group_index, group in enumerate(optimizer.param_groups):
            for index, parameter in enumerate(group["params"]):
                if id(parameter) not in names:
                    position = f"{optimizer_name}.param_groups[{group_index}].params[{index}]"
                    names[id(parameter)] = live.outside_names.get(id(parameter), position)
                    yield names[id(parameter)], parameter


def _optimizer_leaves(optimizer: Any, names: dict[int, str], prefix: str, *, has_scheduler: bool) -> Iterator[Leaf]:
    for parameter, state in optimizer.state.items():
        owner = prefix + (
            names.get(id(parameter), "unnamed") if isinstance(parameter, torch.Tensor) else str(parameter)
        )
        for quantity, value in state.items() if isinstance(state, Mapping) else [("state", state)]:
            component = "optimizer-step" if quantity == "step" else "optimizer-moments"
            readable = isinstance(value, torch.Tensor) or is_plain(value)
            yield Leaf(component, str(quantity), owner, value if readable else digest(value))
    for index, group in enumerate(optimizer.param_groups):
        for option, value in group.items():
            if option == "params":
                members = digest([names.get(id(parameter), "unnamed") for parameter in value])
                counted = f"{len(value)} parameters {members}"
                yield Leaf("optimizer-hyperparameters", "members", f"{prefix}group {index}", counted)
            elif option == "lr" and has_scheduler:
                yield Leaf("lr-scheduler", "lr", f"{prefix}group {index}", digest(value))
            else:
                yield Leaf("optimizer-hyperparameters", str(option), f"{prefix}group {index}", digest(value))


def _scheduler_leaves(scheduler: Any, prefix: str) -> Iterator[Leaf]:
    state = scheduler.state_dict() if hasattr(scheduler, "state_dict") else vars(scheduler)
    for key, value in state.items():
        for path, leaf in flatten(value):
            yield Leaf("lr-scheduler", str(key), f"{prefix}{key}{path}", leaf)


def identity_facts(live: LiveState) -> dict[str, Any]:
    """Which object holds which, as facts that must be the same before and after a resume."""
    names = parameter_names(live)
    optimizers = list(live.optimizers.values())
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    facts: dict[str, Any] = {
        "trained but in no optimizer": sorted(
            name
            for model in live.models.values()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and id(parameter) not in held
        ),
        OUTSIDE: sum(1 for parameter in held if parameter not in names),
        "tied": sorted(_tied(live)),
    }
    for name, scheduler in live.schedulers.items():
        inner = getattr(scheduler, "optimizer", None)
        inner = getattr(inner, "optimizer", inner)
        facts[f"{name} holds the optimizer"] = any(inner is optimizer for optimizer in optimizers) or inner is None
    return facts


def _tied(live: LiveState) -> Iterator[str]:
    for model in live.models.values():
        first: dict[int, str] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            other = first.setdefault(id(parameter), name)
            if other != name:
                yield f"{name} = {other}"
