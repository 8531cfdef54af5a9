"""The base set-up that every specimen differs from in one place: a tiny BERT on 28 rows, 7 batches an epoch.

`make_trainer` makes it; `TinyBert.loss_of` is where a model's loss is changed; `KeepsEverything` is how a clean twin
puts state that the Trainer does not know into its checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

ROWS = 28
BATCH = 4
LENGTH = 12
LABELS = 3
STEPS = 12


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Rows whose content is a pure function of the index."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < ROWS:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(index)
        return {
            "input_ids": torch.randint(5, 60, (LENGTH,), generator=generator),
            "attention_mask": torch.ones(LENGTH, dtype=torch.long),
            "labels": torch.tensor(index % LABELS),
        }


class FewRows(Rows):
    """The first eight rows, for evaluation."""

    def __len__(self) -> int:
        return 8


class TinyBert(BertForSequenceClassification):
    """A two-layer BERT with dropout, whose loss is a method."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        """Logits, and the loss where there are labels."""
        logits = super().forward(input_ids=input_ids, attention_mask=attention_mask).logits
        loss = self.loss_of(logits, labels) if labels is not None else None
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, from logits `[batch, labels]` and labels `[batch]`."""
        return torch.nn.functional.cross_entropy(logits, labels)


def make_model(cls: type[Any] = TinyBert, **changes: Any) -> Any:
    """A tiny model, always with the same weights; `changes` go to its configuration."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 32,
        "num_labels": LABELS,
    }
    return cls(BertConfig(**shape | changes))


def make_arguments(output_dir: str | Path, **changes: Any) -> TrainingArguments:
    """Twelve steps in batches of 4, AdamW, linear decay after 3 steps of warmup."""
    options: dict[str, Any] = {
        "per_device_train_batch_size": BATCH,
        "max_steps": STEPS,
        "learning_rate": 1e-3,
        "warmup_steps": 3,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 5,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return TrainingArguments(output_dir=str(output_dir), **options | changes)


def make_trainer(
    output_dir: str | Path,
    trainer: type[Trainer] = Trainer,
    *,
    model: Any = None,
    rows: Any = None,
    callbacks: Sequence[TrainerCallback] = (),
    collator: Callable[..., Any] | None = None,
    loss: Callable[..., Any] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    eval_rows: Any = None,
    metrics: Callable[..., Any] | None = None,
    **arguments: Any,
) -> Trainer:
    """A trainer on the base set-up with a difference; `arguments` change the `TrainingArguments`."""
    return trainer(
        model=make_model() if model is None else model,
        args=make_arguments(output_dir, **arguments),
        train_dataset=Rows() if rows is None else rows,
        eval_dataset=eval_rows,
        data_collator=collator,
        compute_loss_func=loss,
        compute_metrics=metrics,
        optimizers=(optimizer, None),
        callbacks=list(callbacks),
    )


class TinyTrainer(Trainer):
    """The Trainer, with its parts typed as loosely as the specimens use them."""

    model: Any
    optimizer: Any
    lr_scheduler: Any
    train_dataset: Any

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The loss of a batch."""
        return super().compute_loss(model, inputs, *args, **kwargs)


class KeepsEverything(TinyTrainer):
    """Writes what its parts `keep()` into every checkpoint, and has them `put_back()` when it is resumed.

    A part is the trainer itself, its model, loss, optimizer, collator, data set or callback, if it has both methods.
    """

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        kept = {name: part.keep() for name, part in self._parts().items()}
        torch.save(kept, Path(output_dir) / "kept.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            kept = torch.load(Path(checkpoint) / "kept.pt", weights_only=False)
            for name, part in self._parts().items():
                part.put_back(kept[name])

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "trainer": self,
            "model": self.model,
            "loss": self.compute_loss_func,
            "optimizer": getattr(self.optimizer, "optimizer", self.optimizer),
            "collator": self.data_collator,
            "rows": self.train_dataset,
        }
        for number, callback in enumerate(self.callback_handler.callbacks):
            parts[f"callback {number}"] = callback
        return {name: part for name, part in parts.items() if hasattr(part, "keep") and hasattr(part, "put_back")}
