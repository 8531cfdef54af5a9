"""One short training run by one trainer, timed step by step: the child process of `training_speed.py`.

It imports nothing of this package, so that FlagEmbedding runs it in an environment of its own.

    python training_speed_run.py TRAINER SETTINGS
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

#: Steps that are not counted: memory is allocated, caches are filled.
WARMUP = 2


class Clock:
    """Wall and CPU time at the end of each step."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def callback(self) -> Any:
        """The callback that reads it."""
        from transformers import TrainerCallback

        clock = self

        class Reads(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                clock.wall.append(time.perf_counter())
                clock.cpu.append(time.process_time())

        return Reads()

    def result(self) -> dict[str, Any]:
        """Mean seconds of a step, and the peak of resident memory in MiB."""
        counted = len(self.wall) - 1 - WARMUP
        return {
            "wall": (self.wall[-1] - self.wall[WARMUP]) / counted,
            "cpu": (self.cpu[-1] - self.cpu[WARMUP]) / counted,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def common(settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments of transformers that all trainers get."""
    return {
        "output_dir": settings["output_dir"],
        "max_steps": settings["steps"],
        "per_device_train_batch_size": settings["batch"],
        "learning_rate": 2e-5,
        "optim": "adamw_torch",
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_drop_last": True,
    }


def embedder_options(settings: dict[str, Any]) -> list[str]:
    """The command line that FlagEmbedding and this package have in common."""
    options = common(settings) | {
        "model_name_or_path": settings["model"],
        "train_data": settings["data"],
        "train_group_size": settings["group"],
        "query_max_len": settings["length"],
        "passage_max_len": settings["length"],
        "sentence_pooling_method": "mean",
        "normalize_embeddings": True,
        "temperature": 0.05,
    }
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def resumecheck(settings: dict[str, Any]) -> dict[str, Any]:
    """This package's trainer."""
    from resumecheck.embedding.arguments import parse_train_arguments
    from resumecheck.embedding.train import build_trainer

    trainer = build_trainer(*parse_train_arguments([*embedder_options(settings), "--cache_path", settings["cache"]]))
    clock = Clock()
    trainer.add_callback(clock.callback())
    trainer.train()
    return clock.result()


def flagembedding(settings: dict[str, Any]) -> dict[str, Any]:
    """FlagEmbedding's trainer for encoders."""
    from FlagEmbedding.finetune.embedder.encoder_only.base import (
        EncoderOnlyEmbedderDataArguments,
        EncoderOnlyEmbedderModelArguments,
        EncoderOnlyEmbedderRunner,
        EncoderOnlyEmbedderTrainingArguments,
    )
    from transformers import HfArgumentParser

    kinds = EncoderOnlyEmbedderModelArguments, EncoderOnlyEmbedderDataArguments, EncoderOnlyEmbedderTrainingArguments
    model, data, training = HfArgumentParser(kinds).parse_args_into_dataclasses(
        [*embedder_options(settings), "--cache_path", settings["cache"]]
    )
    runner = EncoderOnlyEmbedderRunner(model_args=model, data_args=data, training_args=training)
    clock = Clock()
    runner.trainer.add_callback(clock.callback())
    runner.trainer.train()
    return clock.result()


def sentence_transformers(settings: dict[str, Any]) -> dict[str, Any]:
    """sentence-transformers' trainer with MultipleNegativesRankingLoss, a column for each negative."""
    import datasets
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    with open(settings["data"], encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    columns = {"anchor": [row["query"] for row in rows], "positive": [row["pos"][0] for row in rows]}
    for place in range(settings["group"] - 1):
        columns[f"negative_{place}"] = [row["neg"][place] for row in rows]
    model = SentenceTransformer(settings["model"], device="cpu")
    model.max_seq_length = settings["length"]
    clock = Clock()
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**common(settings)),
        train_dataset=datasets.Dataset.from_dict(columns),
        loss=MultipleNegativesRankingLoss(model, scale=20.0),
        callbacks=[clock.callback()],
    )
    trainer.train()
    return clock.result()


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    torch.set_num_threads(1)
    trainers = {one.__name__: one for one in (resumecheck, flagembedding, sentence_transformers)}
    print(json.dumps(trainers[sys.argv[1]](json.loads(sys.argv[2]))))
