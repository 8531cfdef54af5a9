"""Hook of the site: a line `<!-- generated: commands -->` in a page becomes what the code says.

`GENERATED` names the parts; each is read from the place that decides: the parser of the command line, the options that
the pytest plugin registers, the public names of the package.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

USAGE_WIDTH = 88
_PLACE = re.compile(r"^<!-- generated: ([\w-]+) -->$", flags=re.MULTILINE)

_FLAG = re.compile(r' *<span class="c1"># doctest: \+SKIP</span>')


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put each generated part in its place; an unknown one ends the build."""
    return _PLACE.sub(lambda place: GENERATED[place[1]](), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave out of the examples of docstrings what only a test runner reads."""
    return _FLAG.sub("", html)


def commands() -> str:
    """A section for each command of `resumecheck --help`, in that order."""
    from resumecheck import cli

    parser = cli._parser()
    (subcommands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {choice.dest: choice.help or "" for choice in subcommands._choices_actions}
    sections = [parser.epilog or ""]
    for name, command in subcommands.choices.items():
        options = _trainer_options(name) if name in cli.TRAINER_COMMANDS else _check_options(command)
        sections.append(f"## {name}\n\n{_sentence(summaries[name])}\n\n{options}")
    return "\n\n".join(sections)


def pytest_options() -> str:
    """The options that the plugin registers, then those of the ini file, then what the marker takes."""
    from _pytest.config.argparsing import Parser

    from resumecheck import options, plugin

    parser = Parser(_ispytest=True)
    plugin.pytest_addoption(parser)
    (group,) = (group for group in parser._groups if group.name == "resumecheck")
    given = [_definition(", ".join(o.names()), o.attrs().get("metavar"), o.attrs()["help"]) for o in group.options]
    ini = [_definition(name, None, help_text) for name, (help_text, *_rest) in parser._inidict.items()]
    marker = ", ".join(f"`{name}=`" for name in options.NAMES)
    return "\n\n".join(
        [
            "## Options",
            *given,
            "## In the ini file",
            *ini,
            "## The marker",
            f"`@pytest.mark.resumecheck(...)` takes {marker}, and so does a call of the fixture `resumecheck`.",
        ]
    )


def fixtures() -> str:
    """The fixtures of the plugin, from their docstrings."""
    from resumecheck.plugin import FIXTURES

    return "\n\n".join(f"::: resumecheck.plugin.{name}" for name in FIXTURES)


def public_names() -> str:
    """What `resumecheck` exports: functions, then what they return and raise."""
    import resumecheck

    return "\n\n".join(f"::: resumecheck.{name}" for name in sorted(resumecheck.__all__, key=str.swapcase))


def strategies() -> str:
    """What `resumecheck.strategies` exports."""
    from resumecheck import strategies as package

    return "\n\n".join(f"::: resumecheck.strategies.{name}" for name in sorted(package.__all__, key=str.swapcase))


GENERATED: dict[str, Callable[[], str]] = {
    "commands": commands,
    "pytest-options": pytest_options,
    "fixtures": fixtures,
    "public-names": public_names,
    "strategies": strategies,
}


def _check_options(command: argparse.ArgumentParser) -> str:
    command.formatter_class = functools.partial(argparse.HelpFormatter, width=USAGE_WIDTH)
    parts = [
        f"```text\n{command.format_usage().rstrip()}\n```",
        _escaped(" ".join((command.description or "").split())),
    ]
    parts.extend(_actions(command))
    if command.epilog:
        parts.append(f"```text\n{command.epilog.rstrip()}\n```")
    return "\n\n".join(part for part in parts if part)


def _trainer_options(name: str) -> str:
    """The options of a command of the embedding trainer; of `train` without those of transformers."""
    from transformers import TrainingArguments

    from resumecheck.embedding import arguments, evaluate, export, mine, score, split

    types: dict[str, tuple[type, ...]] = {
        "train": (arguments.ModelArguments, arguments.DataArguments, arguments.EmbeddingTrainingArguments),
        "evaluate": (evaluate.EvaluateArguments,),
        "mine": (mine.MineArguments,),
        "score": (score.ScoreArguments,),
        "split": (split.SplitArguments,),
        "export": (export.ExportArguments,),
    }
    own = {field for each in types[name] for field in inspect.get_annotations(each)}
    parser = arguments.ArgumentParser(types[name], prog=f"resumecheck {name}", allow_abbrev=False)
    parts = list(_actions(parser, own))
    if TrainingArguments in {base for each in types[name] for base in each.__mro__}:
        parts.append("Besides these, it takes every option of transformers' `TrainingArguments`.")
    return "\n\n".join(parts)


def _actions(parser: argparse.ArgumentParser, only: set[str] | None = None) -> Iterator[str]:
    """The arguments and options, `--help` and its kind left out."""
    for action in parser._actions:
        hidden = isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS
        if hidden or (only is not None and action.dest not in only):
            continue
        text = (action.help or "") % {**vars(action), "prog": parser.prog}
        if action.choices is not None and not isinstance(action, argparse._SubParsersAction):
            text += f"; one of {', '.join(str(choice) for choice in action.choices)}"
        if action.required and action.option_strings:
            text += " (required)"
        elif "default" not in text and action.default not in (None, False, [], argparse.SUPPRESS):
            default = action.default if isinstance(action.default, list) else [action.default]
            text += f" (default: {' '.join(str(value) for value in default)})"
        takes_value = action.nargs != 0 and action.option_strings
        metavar = action.metavar or action.dest.upper()
        name = action.option_strings[0] if action.option_strings else str(metavar)
        yield _definition(name, metavar if takes_value and only is None else None, text)


def _definition(name: str, metavar: Any, text: str) -> str:
    term = f"{name} {metavar}" if metavar else name
    return f"`{term}`\n:   {_escaped(' '.join(text.split()))}"


def _escaped(text: str) -> str:
    """Text of `--help` as Markdown: what is in backticks stays code, the rest is taken literally."""
    parts = re.split(r"(`[^`]+`)", text)
    parts[::2] = [re.sub(r"([\\*_<>\[\]])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
