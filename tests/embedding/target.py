"""A target for `resumecheck verify`: the trainer over the tiny encoder, with dropout, warmup and accumulation."""

import os
from pathlib import Path

from tests.embedding import tiny

#: Where the processes of a check find encoder and data.
DIRECTORY_VARIABLE = "RESUMECHECK_TEST_TRAINER"


def prepare(directory: Path) -> None:
    """Write encoder and data, before a check starts."""
    tiny.write_encoder(directory / "encoder")
    tiny.write_rows(directory / "data" / "train.jsonl", tiny.rows(tiny.ROWS))
    os.environ[DIRECTORY_VARIABLE] = str(directory)


def build(output_dir: str, **changes: object):
    from resumecheck.embedding.arguments import parse_train_arguments
    from resumecheck.embedding.train import build_trainer

    directory = Path(os.environ[DIRECTORY_VARIABLE])
    options = tiny.train_options(directory / "encoder", directory / "data" / "train.jsonl", Path(output_dir), **changes)
    return build_trainer(*parse_train_arguments(options))


def build_with_workers(output_dir: str):
    return build(output_dir, dataloader_num_workers=2)
