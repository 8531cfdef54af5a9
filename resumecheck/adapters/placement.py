"""Put stored leaves of the training state into a live one: the transplant that confirms a cause."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch

from resumecheck.state.capture import LiveState, parameter_names


def put_leaves(live: LiveState, state: Mapping[str, Any], components: frozenset[str]) -> list[str]:
    """Put every stored leaf `component|quantity|name` of the given components in place.

    Returns:
        The keys that could not be placed. Schedules and scalers are put as a whole by `put_objects`, counters by the
        adapter.
    """
    failed: list[str] = []
    names = parameter_names(live)
    if "hidden-state" in components:
        for model in live.models.values():
            for parameter in model.parameters():
                parameter.requires_grad_(f"hidden-state|frozen|{names[id(parameter)]}" not in state)
    tensors = _model_tensors(live)
    owners: dict[str, tuple[Any, torch.Tensor]] = {}
    placed: set[tuple[int, str]] = set()
    prefix = len(live.optimizers) > 1
    for optimizer_name, optimizer in live.optimizers.items():
        for group_index, group in enumerate(optimizer.param_groups):
            for index, parameter in enumerate(group["params"]):
                position = f"{optimizer_name}.param_groups[{group_index}].params[{index}]"
                name = names.get(id(parameter)) or live.outside_names.get(id(parameter), position)
                tensors.setdefault(name, parameter)
                owners[f"{optimizer_name}.{name}" if prefix else name] = (optimizer, parameter)
    for key, value in state.items():
        component, quantity, name = key.split("|", 2)
        if component not in components:
            continue
        if component in ("weights", "buffers", "loss-parameters"):
            target = tensors.get(name)
            if target is None or target.shape != value.shape:
                failed.append(key)
            else:
                with torch.no_grad():
                    target.detach().copy_(value)
        elif component in ("optimizer-moments", "optimizer-step"):
            if name not in owners or (isinstance(value, str) and "#" in value):  # all that is known is a digest
                failed.append(key)
            else:
                optimizer, parameter = owners[name]
                held = (
                    value.detach().clone().to(_device_of(optimizer, parameter, quantity))
                    if isinstance(value, torch.Tensor)
                    else value
                )
                optimizer.state[parameter][quantity] = held
                placed.add((id(parameter), quantity))
        elif component == "gradient-accumulation":
            target = tensors.get(name)
            if target is None:
                failed.append(key)
            else:
                target.grad = value.detach().clone()
    for optimizer, parameter in owners.values() if placed else ():
        for quantity, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor) and (id(parameter), quantity) not in placed:
                # Two optimizers that were loaded from one state share its tensors: what is put right shares none.
                optimizer.state[parameter][quantity] = value.detach().clone()
    return failed


def stored_objects(live: LiveState) -> dict[str, Any]:
    """What is stored beside the leaves, so that schedules, scalers and group options can be put back as a whole."""
    names = parameter_names(live)
    return {
        "schedulers": {name: scheduler.state_dict() for name, scheduler in live.schedulers.items()},
        "scaler": live.scaler.state_dict() if live.scaler is not None else None,
        "groups": {
            name: [
                {**group, "params": [names.get(id(parameter), "") for parameter in group["params"]]}
                for group in optimizer.param_groups
            ]
            for name, optimizer in live.optimizers.items()
        },
    }


def put_objects(live: LiveState, stored: Mapping[str, Any], components: frozenset[str]) -> None:
    """Put schedules, the scaler and the options of parameter groups in place."""
    if "lr-scheduler" in components:
        for name, state in stored["schedulers"].items():
            if name in live.schedulers:
                with contextlib.suppress(Exception):
                    live.schedulers[name].load_state_dict(state)
                _rebind(live.schedulers[name], list(live.optimizers.values()))
    if "grad-scaler" in components and stored["scaler"] is not None and live.scaler is not None:
        live.scaler.load_state_dict(stored["scaler"])
    tensors = _model_tensors(live)
    for name, groups in stored["groups"].items():
        live_groups = live.optimizers[name].param_groups if name in live.optimizers else []
        for group, options in zip(live_groups, groups, strict=False):
            for option, value in options.items():
                if option == "params":
                    members = [tensors[member] for member in value if member in tensors]
                    if "optimizer-hyperparameters" in components and len(members) == len(value):
                        group["params"] = members
                elif (
                    "lr-scheduler" if option == "lr" and live.schedulers else "optimizer-hyperparameters"
                ) in components:
                    group[option] = value


def _rebind(scheduler: Any, optimizers: list[Any]) -> None:
    """Let a schedule hold the optimizer that trains, if it holds another one."""
    held = getattr(scheduler, "optimizer", None)
    inner = getattr(held, "optimizer", held)
    if held is not None and len(optimizers) == 1 and inner is not optimizers[0]:
        scheduler.optimizer = optimizers[0]


def _model_tensors(live: LiveState) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for model_name, model in live.models.items():
        start = "" if len(live.models) == 1 else f"{model_name}."
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            tensors[start + name] = tensor
    return tensors


def _device_of(optimizer: Any, parameter: torch.Tensor, quantity: str) -> torch.device:
    now = optimizer.state.get(parameter, {}).get(quantity)
    if isinstance(now, torch.Tensor):
        return now.device
    return torch.device("cpu") if quantity == "step" else parameter.device
