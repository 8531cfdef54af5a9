"""A copy of a target's source in one directory, from which it runs without the project that it comes from.

The layout is kept: files lie to each other as they did, so `__file__` and relative imports mean the same. Several
unrelated import roots become directories beside each other.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from resumecheck.errors import UsageError
from resumecheck.repro.sources import Sources, search_roots
from resumecheck.runs.opened import is_installed
from resumecheck.runs.target import Target

if TYPE_CHECKING:
    from resumecheck.repro.failure import Recipe

#: Data that belongs to the target is embedded up to this size: one file, and all together, in bytes.
LARGEST_FILE, LARGEST_DATA = 64 * 1024, 256 * 1024
#: All source together, in bytes: what an issue can still hold is far less.
LARGEST_SOURCE = 2 * 1024 * 1024

_WRAPPER = '''\
"""The target, made smaller by `resumecheck repro`."""

import importlib
{imports}
original = importlib.import_module({module!r}).{factory}
OPTIONS = {options!r}


def build(output_dir):
{body}'''
_WITH_OPTIONS = '''\
    """The target with OPTIONS in place of its own."""
    return original(output_dir, **OPTIONS)
'''
_WITH_ARGUMENTS = '''\
    """The target with OPTIONS, and with ARGUMENTS as if it had given them to TrainingArguments."""
    post_init = TrainingArguments.__post_init__

    def changed(self, *args, **kwargs):
        for name, value in ARGUMENTS.items():
            setattr(self, name, value)
        post_init(self, *args, **kwargs)

    TrainingArguments.__post_init__ = changed
    try:
        return original(output_dir, **OPTIONS)
    finally:
        TrainingArguments.__post_init__ = post_init
'''


@dataclasses.dataclass(frozen=True)
class Bundle:
    """Everything of a target that can be embedded.

    Attributes:
        target: its name, seen from `home`.
        module, factory: how the factory is imported.
        files: path in the bundle -> content, the file of the factory first.
        path: the import roots in the bundle.
        home: the working directory in the bundle.
        outside: files that the target reads and that are not embedded, since they are large or lie elsewhere.
        installed: whether the factory is imported from an installed package.
    """

    target: str
    module: str
    factory: str
    files: dict[str, bytes]
    path: tuple[str, ...] = (".",)
    home: str = "."
    outside: tuple[str, ...] = ()
    installed: bool = False

    def as_target(self, directory: Path) -> Target:
        """The target of the copy that lies in a directory, from which nothing but the copy is imported."""
        place, _, factory = self.target.rpartition(":")
        home = (directory / self.home).resolve()
        path = tuple(dict.fromkeys([str(home), *(str((directory / root).resolve()) for root in self.path)]))
        if not place.endswith(".py"):
            return Target(self.target, module=place, factory=factory, path=path, home=str(home))
        file = (home / place).resolve()
        return Target(
            self.target,
            file=str(file),
            module=file.stem,
            factory=factory,
            path=tuple(dict.fromkeys([str(file.parent), *path])),
            home=str(home),
        )

    def write(self, directory: Path) -> None:
        """Lay the files out under a directory."""
        for name, content in self.files.items():
            file = directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        (directory / self.home).mkdir(parents=True, exist_ok=True)


def make_smaller(bundle: Bundle, recipe: Recipe, name: str = "reduced") -> Bundle:
    """The bundle with a further file whose `build` calls the target with the options of a recipe."""
    if not recipe.options and not recipe.arguments:
        return bundle
    imports = "\nfrom transformers import TrainingArguments\n" if recipe.arguments else ""
    text = _WRAPPER.format(
        imports=imports,
        module=bundle.module,
        factory=bundle.factory,
        options=dict(recipe.options),
        body=_WITH_ARGUMENTS if recipe.arguments else _WITH_OPTIONS,
    )
    if recipe.arguments:
        text = text.replace("\n\n\ndef build", f"\nARGUMENTS = {dict(recipe.arguments)!r}\n\n\ndef build", 1)
    file = os.path.normpath(os.path.join(bundle.home, f"{name}.py"))
    if file in bundle.files:
        return make_smaller(bundle, recipe, f"{name}_")
    return dataclasses.replace(bundle, target=f"{name}.py:build", files={file: text.encode(), **bundle.files})


def bundle_of(target: Target, sources: Sources) -> Bundle:
    """The bundle of a target whose runs read these files.

    Raises:
        UsageError: it has no name that another process could use, or its source is too much.
    """
    if target.factory is None or target.pickled is not None:
        raise UsageError(f"{target.name} is no name of a factory; give one with --target pkg.mod:build")
    files = [path.resolve() for path in sources.python]
    roots = search_roots(files, (*target.path, *sys.path))
    tops = [root for root in roots if not any(root != other and root.is_relative_to(other) for other in roots)]
    names = _names(tops)
    places = {file: _place(file, names) for file in files}
    here = Path.cwd().resolve()
    home = _place(here, names) if any(here.is_relative_to(top) for top in tops) else "."
    path = tuple(dict.fromkeys(_place(root, names) for root in roots)) or (".",)
    content = {place: file.read_bytes() for file, place in places.items()}
    module, factory, stays = str(target.module), target.factory, False
    place = _factory_place(target, roots, places)
    name = f"{module}:{factory}"
    if place is None:
        file = _installed_file(target)
        stays = file is None or imports_its_neighbours(file)
        if file is not None and not stays:
            place, name, module = os.path.normpath(os.path.join(home, file.name)), f"{file.name}:{factory}", file.stem
            content[place] = file.read_bytes()
    elif target.file is not None:
        name = f"{os.path.relpath(place, home)}:{factory}"
    first = {place: content[place]} if place is not None else {}
    data, outside = _data(sources.data, tops, names)
    if sum(map(len, content.values())) > LARGEST_SOURCE:
        raise UsageError(
            f"the target reads {len(content)} source files of its project, {sum(map(len, content.values())):,} bytes: "
            f"too much for one script (at most {LARGEST_SOURCE:,}).\nGive --target a factory that imports less."
        )
    return Bundle(name, module, factory, {**first, **content, **data}, path, home, outside, stays)


def _names(tops: Iterable[Path]) -> dict[Path, str]:
    """Each root -> its directory in the bundle: the bundle itself where there is one root."""
    tops = list(tops)
    if len(tops) <= 1:
        return dict.fromkeys(tops, ".")
    names: dict[Path, str] = {}
    for top in tops:
        name = top.name or "root"
        while name in names.values():
            name += "_"
        names[top] = name
    return names


def _place(path: Path, names: dict[Path, str]) -> str:
    """Where a path lies in the bundle."""
    for top, name in names.items():
        if path.is_relative_to(top):
            return os.path.normpath(os.path.join(name, path.relative_to(top)))
    raise UsageError(f"{path} lies under no import root of the target; give --target a factory in a file of its own")


def _factory_place(target: Target, roots: list[Path], places: dict[Path, str]) -> str | None:
    """Where the file of the factory lies in the bundle; None where it is no file of the project."""
    if target.file is not None:
        return places.get(Path(target.file).resolve())
    parts = str(target.module).split(".")
    candidates = [
        file
        for root in roots
        for file in (root.joinpath(*parts[:-1], f"{parts[-1]}.py"), root.joinpath(*parts, "__init__.py"))
    ]
    return next((places[file] for file in candidates if file in places), None)


def _installed_file(target: Target) -> Path | None:
    """The file of a factory that is in an installed package."""
    if target.file is not None:
        return Path(target.file)
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(str(target.module))
        if spec is not None and spec.origin is not None and is_installed(Path(spec.origin)):
            return Path(spec.origin)
    return None


def imports_its_neighbours(file: Path) -> bool:
    """Whether a file of an installed package cannot be a file of its own."""
    nodes = ast.walk(ast.parse(file.read_bytes()))
    return file.name == "__init__.py" or any(isinstance(node, ast.ImportFrom) and node.level for node in nodes)


def _data(files: Iterable[Path], tops: list[Path], names: dict[Path, str]) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Small data files that lie with the source, and the paths of all others."""
    embedded: dict[str, bytes] = {}
    outside: list[str] = []
    for path in sorted(files):
        file = path.resolve()
        inside = any(file.is_relative_to(top) for top in tops)
        parts = Path(_place(file, names)).parts if inside else ()
        if ".git" in parts:
            continue  # Tools look there, no training depends on it.
        hidden = any(part.startswith(".") for part in parts)  # `.env` and its like hold secrets.
        room = LARGEST_DATA - sum(map(len, embedded.values()))
        if inside and not hidden and file.stat().st_size <= min(LARGEST_FILE, room):
            embedded[_place(file, names)] = file.read_bytes()
        else:
            outside.append(str(path))
    return embedded, tuple(outside)
