"""`resumecheck split`: training data in files by the length of its texts: short rows need no padding to long ones."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resumecheck.embedding.command import run_command
from resumecheck.embedding.model import load_tokenizer
from resumecheck.embedding.rows import checked_lines, find_files
from resumecheck.errors import UsageError

#: Rows that are tokenized at a time.
_ROWS = 256


@dataclasses.dataclass
class SplitArguments:
    """Options of `resumecheck split`, named as FlagEmbedding's `split_data_by_length` names them."""

    input_path: str = dataclasses.field(metadata={"help": "JSONL file, or directory of such files"})
    output_dir: str = dataclasses.field(metadata={"help": "directory to write to"})
    model_name_or_path: str = dataclasses.field(metadata={"help": "directory of the model whose tokenizer counts"})
    length_list: list[int] = dataclasses.field(
        default_factory=lambda: [0, 500, 1000, 2000, 3000, 4000, 5000, 6000, 7000],
        metadata={"help": "where a range of lengths begins, in tokens; the last has no end"},
    )
    overwrite: bool = dataclasses.field(default=False, metadata={"help": "write over files that are there"})


def main(argv: Sequence[str] | None = None) -> int:
    """Split as the options say; returns the exit status, 2 for wrong usage with one message on stderr."""

    def run(options: SplitArguments) -> None:
        for path, count in split(options).items():
            print(f"{path}: {count} rows")

    return run_command("split", SplitArguments, run, argv)


def split(options: SplitArguments) -> dict[Path, int]:
    """Write each row to the file of its range; its length is that of its longest text, in tokens.

    Returns:
        How many rows each written file has. Ranges without rows have no file.

    Raises:
        UsageError: the ranges, a file or a row cannot be used.
    """
    bounds = options.length_list
    if bounds != sorted(set(bounds)) or bounds[0] != 0:
        raise UsageError(f"--length_list {' '.join(map(str, bounds))}: expected rising numbers that begin with 0")
    tokenizer = load_tokenizer(options.model_name_or_path)
    output_dir = Path(options.output_dir)
    names = [f"{start}-{end}" for start, end in zip(bounds, [*bounds[1:], "inf"], strict=True)]
    counts: dict[Path, int] = {}
    files = find_files([options.input_path])
    paths = {(file.path, name): output_dir / f"{file.path.stem}_len-{name}.jsonl" for file in files for name in names}
    there = [path for path in paths.values() if path.exists()]
    if there and not options.overwrite:
        raise UsageError(f"{there[0]} is there already; give --overwrite true or another --output_dir")
    for path in there:
        path.unlink()
    output_dir.mkdir(parents=True, exist_ok=True)
    for file in files:
        with contextlib.ExitStack() as stack:
            opened: dict[str, Any] = {}
            rows = checked_lines(file.path)
            while some := list(itertools.islice(rows, _ROWS)):
                for (line, _), length in zip(some, _lengths([row for _, row in some], tokenizer), strict=True):
                    name = names[sum(start <= length for start in bounds) - 1]
                    path = paths[file.path, name]
                    if name not in opened:
                        opened[name] = stack.enter_context(path.open("wb"))
                    opened[name].write(line if line.endswith(b"\n") else line + b"\n")
                    counts[path] = counts.get(path, 0) + 1
    return counts


def _lengths(rows: Sequence[Mapping[str, Any]], tokenizer: Any) -> list[int]:
    """The tokens of the longest text of each row."""
    texts = [[row["query"], *row["pos"], *row["neg"]] for row in rows]
    counted = iter(len(tokens) for tokens in tokenizer([text for part in texts for text in part])["input_ids"])
    return [max(next(counted) for _ in part) for part in texts]


if __name__ == "__main__":
    sys.exit(main())
