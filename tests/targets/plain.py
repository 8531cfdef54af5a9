"""The base set-up: a two-layer BERT with dropout, AdamW, linear warmup, 28 rows in 7 batches an epoch."""

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

ROWS = 28


class Rows(torch.utils.data.Dataset):
    """Rows whose content is a pure function of the index."""

    def __len__(self):
        return ROWS

    def __getitem__(self, index):
        if not 0 <= index < ROWS:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(index)
        return {
            "input_ids": torch.randint(5, 60, (12,), generator=generator),
            "attention_mask": torch.ones(12, dtype=torch.long),
            "labels": torch.tensor(index % 3),
        }


def make_model(cls=BertForSequenceClassification):
    """A small BERT, always with the same weights."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return cls(BertConfig(vocab_size=64, max_position_embeddings=32, num_labels=3, **shape))


def make_arguments(output_dir, **changes):
    """Two epochs of 7 steps, AdamW, warmup over 3 steps."""
    options = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "warmup_steps": 3,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 5,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return TrainingArguments(output_dir=str(output_dir), **options | changes)


def make_trainer(output_dir, cls=Trainer, model=None, rows=None, **changes):
    """A trainer on the base set-up, with a difference."""
    return cls(
        model=model if model is not None else make_model(),
        args=make_arguments(output_dir, **changes),
        train_dataset=rows if rows is not None else Rows(),
    )


def build(output_dir):
    """The base set-up itself."""
    return make_trainer(output_dir)


def build_with_workers(output_dir):
    """With two loader workers."""
    return make_trainer(output_dir, dataloader_num_workers=2)


def build_with_accumulation(output_dir):
    """Accumulation over 3 of 7 batches: the last window of an epoch is shorter."""
    return make_trainer(output_dir, gradient_accumulation_steps=3, num_train_epochs=4)


def build_with_accumulation_and_workers(output_dir):
    """Both."""
    return make_trainer(output_dir, gradient_accumulation_steps=3, num_train_epochs=4, dataloader_num_workers=2)


def build_nothing(output_dir):
    """A factory that forgets to return its trainer."""


def build_broken(output_dir):
    """A factory that raises."""
    raise RuntimeError("no data here")
