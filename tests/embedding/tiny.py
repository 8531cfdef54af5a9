"""A BERT of a few thousand parameters over a small vocabulary, and rows to train it on."""

import json
import random
from pathlib import Path

WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "e", "i", "o", "u")]


def write_encoder(directory: Path, *, seed: int = 0) -> Path:
    """A model directory with configuration, weights and a WordPiece tokenizer."""
    from transformers import BertConfig, BertModel

    return _write_model(directory, seed, BertModel, BertConfig)


def write_decoder(directory: Path, *, seed: int = 0) -> Path:
    """A LLaMA of a few thousand parameters, with the tokenizer of the tiny encoder."""
    from transformers import LlamaConfig, LlamaModel

    return _write_model(directory, seed, LlamaModel, LlamaConfig, num_key_value_heads=1)


def write_reranker(directory: Path, *, seed: int = 0, **changes: object) -> Path:
    """A BERT that scores pairs of texts; its weights are large, so that the scores differ."""
    from transformers import BertConfig, BertForSequenceClassification

    facts = {"num_labels": 1, "initializer_range": 0.5, **changes}
    return _write_model(directory, seed, BertForSequenceClassification, BertConfig, **facts)


def _write_model(directory: Path, seed: int, model, config, **more) -> Path:
    import torch
    from transformers import BertTokenizerFast

    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"##{word}" for word in WORDS)]
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    torch.manual_seed(seed)
    shape = config(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        **more,
    )
    model(shape).save_pretrained(directory)
    BertTokenizerFast.from_pretrained(directory).save_pretrained(directory)
    return directory


def set_dropout(model, share: float) -> None:
    """Give every dropout of a model this share, that of attention too, which transformers 4 keeps as a number."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = share


def texts(count: int, *, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for _ in range(count)]


def rows(count: int, *, positives: int = 2, negatives: int = 5, seed: int = 0) -> list[dict]:
    found = []
    for number in range(count):
        query, *others = texts(1 + positives + negatives, seed=seed * 10_000 + number)
        found.append({"query": query, "pos": others[:positives], "neg": others[positives:]})
    return found


def write_rows(path: Path, found: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


def train_options(encoder: Path, data: Path, output_dir: Path, **changes: object) -> list[str]:
    """The options of a run of 8 steps: 2 epochs of 7 batches, 2 batches to a step, a last step of one batch."""
    options: dict[str, object] = {
        "model_name_or_path": encoder,
        "train_data": data,
        "output_dir": output_dir,
        "cache_path": data.parent / "cache",
        "train_group_size": 3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "query_max_len": 12,
        "passage_max_len": 16,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
    }
    options.update(changes)
    return [part for name, value in options.items() if value is not None for part in (f"--{name}", str(value))]


#: Rows for `train_options`: 6 full batches and one of 2.
ROWS = 26
