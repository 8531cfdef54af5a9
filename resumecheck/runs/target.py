"""Names and loads a target: `pkg.mod:build`, `path/file.py:build`, or a callable that is sent to the run's process.

A function of a module is named, and loaded from its file by the process; the arguments of a `functools.partial` of one
are sent beside the name. Only closures, methods and what `__main__` defines are sent by value.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
import pickle
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import Any

from resumecheck.errors import UsageError
from resumecheck.runs.opened import is_installed


@dataclasses.dataclass(frozen=True)
class Target:
    """How a run's process gets the factory.

    Attributes:
        name: as the user gave it, for reports.
        file: a Python file, None where a module or a pickle is used.
        module: the name of the module; with `file` the name under which the file is loaded.
        factory: the name of the factory inside the module.
        pickled: the factory itself, sent by value (cloudpickle), for closures.
        arguments: positional and named arguments of a partial of the factory, pickled.
        path: what the process adds to `sys.path`.
        home: the working directory of a copy, from which only the copy and what is installed can be imported.
    """

    name: str
    file: str | None = None
    module: str | None = None
    factory: str | None = None
    pickled: bytes | None = None
    arguments: bytes | None = None
    path: tuple[str, ...] = ()
    home: str | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        """What makes two targets the same, for the cache of runs."""
        return (self.file, self.module, self.factory, self.pickled, self.arguments)


def find_target(target: str | Callable[..., Any] | Target) -> Target:
    """Check as much of a target as can be checked without importing it.

    Raises:
        UsageError: it cannot be the name of a target, the file is not there, or the callable cannot be sent.
    """
    if isinstance(target, Target):
        return target
    if isinstance(target, str):
        return _named(target)
    if callable(target):
        return _sent(target)
    raise UsageError(f"a target is 'pkg.mod:build', 'path/file.py:build' or a callable, got {type(target).__name__}")


def _named(name: str) -> Target:
    place, colon, factory = name.rpartition(":")
    if not colon or not place or not factory:
        raise UsageError(f"target {name!r}: expected 'pkg.mod:build' or 'path/file.py:build', no ':build' was found")
    if not all(part.isidentifier() for part in factory.split(".")):
        raise UsageError(f"target {name!r}: {factory!r} is not the name of a factory")
    search = (os.getcwd(), *(entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry))
    looks_like_path = place.endswith(".py") or os.sep in place
    if looks_like_path or Path(place).exists():
        file = Path(place)
        if not file.exists():
            raise UsageError(f"target {name!r}: the file {place} does not exist")
        if file.is_dir():
            raise UsageError(f"target {name!r}: {place} is a directory, expected a Python file or a module name")
        if file.suffix != ".py":
            raise UsageError(f"target {name!r}: {place} is not a Python file (expected a name that ends in .py)")
        resolved = file.resolve()
        return Target(
            name, file=str(resolved), module=resolved.stem, factory=factory, path=(str(resolved.parent), *search)
        )
    if not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(f"target {name!r}: {place!r} is neither a file nor the name of a module")
    return Target(name, module=place, factory=factory, path=search)


def _sent(factory: Callable[..., Any]) -> Target:
    """A callable: by file and name where it is a plain module-level function or a partial of one, else by value."""
    import cloudpickle

    function, bound, named = _taken_apart(factory)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    path = tuple(entry or os.getcwd() for entry in sys.path)
    file = _file_of(function, name)
    try:
        if file and factory is function:
            return Target(f"{file}:{name}", file=file, module=function.__module__, factory=name, path=path)
        if file and function.__module__ != "__main__":
            arguments = cloudpickle.dumps((bound, named))
            return Target(
                f"{file}:{name}", file=file, module=function.__module__, factory=name, arguments=arguments, path=path
            )
        with _by_value(function):
            return Target(name, factory=name, pickled=cloudpickle.dumps(factory), path=path)
    except Exception as error:
        raise UsageError(
            f"the factory {name} cannot be sent to another process: {type(error).__name__}: {error}\n"
            "Use a module-level function, a functools.partial of one, or a closure over values that can be pickled."
        ) from error


def _taken_apart(factory: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """What a partial, or a partial of a partial, calls, and with which arguments."""
    bound, named = (), {}
    while isinstance(factory, functools.partial):
        bound, named = (*factory.args, *bound), {**factory.keywords, **named}
        factory = factory.func
    return factory, bound, named


def _file_of(function: Any, name: str) -> str | None:
    """The file from which another process can take the function by its name; None where it cannot."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    plain = inspect.isfunction(function) and name.isidentifier() and getattr(module, name, None) is function
    return getattr(module, "__file__", None) if plain else None


@contextlib.contextmanager
def _by_value(factory: Any) -> Generator[None]:
    """Within: the module of the factory, unless it is installed, is pickled by value."""
    import cloudpickle

    module = sys.modules.get(getattr(factory, "__module__", None) or "")
    installed = module is None or "site-packages" in (module.__file__ or "site-packages")
    if module is None or installed or module.__name__ == "__main__":
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def load_factory(target: Target) -> Callable[[str], Any]:
    """Import the target in this process and return its factory.

    Raises:
        UsageError: the module or the factory is not there. What the import itself raises is passed on.
    """
    if target.home is not None:
        os.chdir(target.home)
        sys.path[:] = [entry for entry in sys.path if is_installed(Path(entry, "module")) or os.path.isfile(entry)]
    for entry in reversed(target.path):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    if target.pickled is not None:
        return pickle.loads(target.pickled)
    if target.file is not None:
        module = _load_file(target)
    else:
        try:
            module = importlib.import_module(target.module or "")
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing and (target.module or "").startswith(missing):
                raise UsageError(f"target {target.name!r}: there is no module {missing!r} on the path") from error
            raise
    factory: Any = module
    for part in (target.factory or "").split("."):
        factory = getattr(factory, part, None)
        if factory is None:
            known = [
                name
                for name, item in vars(module).items()
                if inspect.isfunction(item) and item.__module__ == module.__name__
            ]
            there = f"; functions there: {', '.join(sorted(known)[:8])}" if known else ""
            raise UsageError(f"target {target.name!r}: {module.__name__} has no {target.factory!r}{there}")
    if not callable(factory):
        raise UsageError(
            f"target {target.name!r}: {target.factory} is not a function but of type {type(factory).__name__}"
        )
    if target.arguments is None:
        return factory
    bound, named = pickle.loads(target.arguments)
    return functools.partial(factory, *bound, **named)


def factory_options(factory: Callable[..., Any]) -> dict[str, bool | int | float]:
    """The numbers and switches that a factory takes beside its output directory, with their defaults."""
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        return {}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        parameter.name: parameter.default
        for parameter in parameters[1:]
        if parameter.kind in by_name and isinstance(parameter.default, bool | int | float)
    }


def _load_file(target: Target) -> ModuleType:
    name = target.module or "target"
    spec = importlib.util.spec_from_file_location(name, target.file or "")
    if spec is None or spec.loader is None:
        raise UsageError(f"target {target.name!r}: {target.file} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UsageError(
            f"target {target.name!r}: {target.file} is not valid Python: line {error.lineno}: {error.msg}"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"target {target.name!r}: {target.file} is not text, so it is not Python") from error
    return module
