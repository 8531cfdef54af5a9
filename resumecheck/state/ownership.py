"""Whose code is it: the target's own, or an installed library's? Only own code is walked to the end."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
import types
from collections.abc import Iterator
from typing import Any

#: Parts of this package that are targets themselves; everything else of it observes and is never part of a run's state.
_OWN_PARTS = ("resumecheck.zoo", "resumecheck.embedding", "resumecheck.strategies")


@functools.lru_cache(maxsize=1)
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple({paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def is_own_module(name: str, namespace: dict[str, Any] | None = None) -> bool:
    """Whether a module is the target's: not of the standard library, not installed, not part of the observer."""
    if name == "resumecheck" or name.startswith("resumecheck."):
        return name.startswith(_OWN_PARTS)
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None) if module is not None else (namespace or {}).get("__file__")
    if file is None:
        # Code sent from another process has no module here; built-in modules have no file.
        return (module is None and name != "builtins") or name == "__main__"
    return not any(str(file).startswith(folder) for folder in _library_folders()) and "site-packages" not in str(file)


@functools.lru_cache(maxsize=4096)
def is_own_type(cls: type) -> bool:
    """Whether a class is defined in the target's own code."""
    return is_own_module(cls.__module__)


def own_modules() -> Iterator[tuple[str, types.ModuleType]]:
    """Every module that is loaded from a file of the target's own, by name."""
    own: dict[str, bool] = {}  # by package: most of thousands of modules are in a few
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top not in own:
            own[top] = top == "resumecheck" or is_own_module(top)
        if not own[top] or not isinstance(module, types.ModuleType):
            continue  # torch has modules that name no folder
        file = vars(module).get("__file__")
        if isinstance(file, str) and os.path.isabs(file) and is_own_module(name):
            yield name, module
