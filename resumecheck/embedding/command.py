"""The command line of the embedding trainer's commands: options into dataclasses, mistakes into one message."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

from transformers import HfArgumentParser
from transformers.utils.logging import disable_progress_bar

from resumecheck.embedding.flagembedding import REFUSED_BY
from resumecheck.errors import UsageError

USAGE_STATUS = 2


class ArgumentParser(HfArgumentParser):
    """An argument parser whose errors are `UsageError`s of one line."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print below the list of all options."""
        message = re.sub(r"^argument (--\w+)\S*:", r"\1:", message)  # argparse names the option with all its spellings
        raise UsageError(f"{message} (see {self.prog} --help)")

    def parse(self, argv: Sequence[str] | None) -> tuple[Any, ...]:
        """The dataclasses filled from the command line.

        Raises:
            UsageError: an option is not known, is missing or has a value that it cannot have.
        """
        try:
            parsed: tuple[Any, ...] = self.parse_args_into_dataclasses(
                None if argv is None else list(argv), return_remaining_strings=True, look_for_args_file=False
            )
        except (ValueError, ImportError) as error:
            raise UsageError(" ".join(str(error).split())) from error
        if parsed[-1]:
            name = parsed[-1][0].partition("=")[0].removeprefix("--")
            refused = REFUSED_BY.get(self.prog.rpartition(" ")[2], {})
            if name in refused:
                raise UsageError(f"--{name} cannot be used here: {refused[name]}")
            self.error(f"unknown option: {' '.join(parsed[-1])}")
        return parsed[:-1]


def run_command(name: str, options: type, action: Callable[[Any], None], argv: Sequence[str] | None) -> int:
    """`resumecheck NAME`: read the options into their dataclass, and do what they say.

    Returns:
        The exit status: 0, or 2 for wrong usage, with one message on stderr.
    """
    disable_progress_bar()  # of reading the weights
    try:
        parser = ArgumentParser(cast("Any", options), prog=f"resumecheck {name}", allow_abbrev=False)
        action(*parser.parse(argv))
    except (UsageError, OSError) as error:
        print(f"resumecheck {name}: {error}", file=sys.stderr)
        return USAGE_STATUS
    return 0
