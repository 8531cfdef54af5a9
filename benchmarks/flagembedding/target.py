"""FlagEmbedding's own fine-tuner as a target: what a resume loses there, on its example data and a tiny BERT.

sh benchmarks/flagembedding/environment.sh ENVIRONMENT
export FLAGEMBEDDING_DATA=DIRECTORY_OF_JSONL_FILES
ENVIRONMENT/bin/resumecheck verify benchmarks/flagembedding/target.py:as_it_is --at 2,6
ENVIRONMENT/bin/resumecheck verify benchmarks/flagembedding/target.py:without_the_crash --at 2,6
ENVIRONMENT/bin/resumecheck verify benchmarks/flagembedding/target.py:same_dataset --at 2,6
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any


def as_it_is(output_dir: str) -> Any:
    """As `python -m FlagEmbedding.finetune.embedder.encoder_only.base` makes it."""
    return _trainer(output_dir)


def without_the_crash(output_dir: str) -> Any:
    """With the attribute that a resume looks for in vain."""
    trainer = _trainer(output_dir)
    trainer.model._keys_to_ignore_on_save = None
    return trainer


def same_dataset(output_dir: str) -> Any:
    """The same with batches of one data set."""
    trainer = _trainer(output_dir, same_dataset_within_batch=True)
    trainer.model._keys_to_ignore_on_save = None
    return trainer


def _trainer(output_dir: str, **changes: Any) -> Any:
    from FlagEmbedding.finetune.embedder.encoder_only.base import (
        EncoderOnlyEmbedderDataArguments,
        EncoderOnlyEmbedderModelArguments,
        EncoderOnlyEmbedderRunner,
        EncoderOnlyEmbedderTrainingArguments,
    )
    from transformers import HfArgumentParser

    options = {
        "model_name_or_path": _tiny_encoder(),
        "train_data": os.environ["FLAGEMBEDDING_DATA"],
        "cache_path": Path(tempfile.gettempdir()) / "resumecheck-flagembedding-cache",
        "output_dir": output_dir,
        "train_group_size": 4,
        "query_max_len": 16,
        "passage_max_len": 24,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "warmup_steps": 3,
        "dataloader_drop_last": True,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    } | changes
    kinds = EncoderOnlyEmbedderModelArguments, EncoderOnlyEmbedderDataArguments, EncoderOnlyEmbedderTrainingArguments
    model, data, training = HfArgumentParser(kinds).parse_args_into_dataclasses(
        [text for name, value in options.items() for text in (f"--{name}", str(value))]
    )
    return EncoderOnlyEmbedderRunner(model_args=model, data_args=data, training_args=training).trainer


def _tiny_encoder() -> Path:
    """A BERT of a few thousand parameters whose tokens are letters, always the same."""
    import string

    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    directory = Path(tempfile.gettempdir()) / "resumecheck-flagembedding-encoder"
    if not (directory / "tokenizer.json").exists():
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, *string.digits]
        tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        names = {name: f"[{name[:3].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token")}
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **shape)).save_pretrained(directory)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(directory)
    return directory
