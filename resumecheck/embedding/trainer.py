"""transformers' Trainer with the data order, the loss and the checkpoints of this package."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput

from resumecheck.embedding import checkpoint
from resumecheck.embedding.arguments import EmbeddingTrainingArguments
from resumecheck.embedding.collator import Collator
from resumecheck.embedding.dataset import TrainDataset
from resumecheck.embedding.losses.objective import Objective
from resumecheck.embedding.model import BiEncoder
from resumecheck.embedding.sampler import EpochBatchSampler, PoolBatchSampler
from resumecheck.embedding.settings import EmbeddingSettings


class EmbeddingTrainer(Trainer):
    """Trains a `BiEncoder`; resuming it is exact.

    What a step depends on is either in the checkpoint or a pure function of (seed, epoch, row); the epoch follows from
    `state.global_step`, which the checkpoint holds.
    """

    args: EmbeddingTrainingArguments
    model: BiEncoder

    def __init__(
        self,
        model: BiEncoder,
        args: EmbeddingTrainingArguments,
        *,
        settings: EmbeddingSettings,
        train_dataset: TrainDataset,
        data_collator: Collator,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=cast("Any", train_dataset),
            data_collator=cast("Any", data_collator),
            processing_class=tokenizer,
        )
        self.settings = settings
        self.data: TrainDataset = train_dataset
        self.steps_per_epoch = 1
        self.training_objective = Objective(
            temperature=args.temperature,
            normalize=args.normalize_embeddings,
            dimensions=tuple(args.mrl_dims),
            kd_loss_type=args.kd_loss_type,
            cross_device=args.negatives_cross_device,
        )

    # --- data -------------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """Batches of samples; with several processes, accelerate deals the batches out in turn."""
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        batches: EpochBatchSampler | PoolBatchSampler
        if self.data.pools is None:
            batches = EpochBatchSampler(
                len(self.data),
                self._train_batch_size,
                seed=seed,
                drop_last=args.dataloader_drop_last,
                epoch=self.finished_epochs,
            )
        else:
            batches = PoolBatchSampler(
                self.data.pools, seed=seed, world_size=args.world_size, epoch=self.finished_epochs
            )
            self.accelerator.even_batches = False  # there is a batch for each process, none is filled up with others
        loader = DataLoader(
            self.data,
            batch_sampler=batches,
            collate_fn=cast("Any", self.data_collator),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )
        prepared = self.accelerator.prepare(loader)
        self.steps_per_epoch = max(1, -(-len(prepared) // args.gradient_accumulation_steps))
        return prepared

    def finished_epochs(self) -> int:
        """Epochs behind the run, by the step that it has reached."""
        return self.state.global_step // self.steps_per_epoch

    # --- loss -------------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch of the collator, a scalar."""
        texts = {"queries": inputs["queries"], "passages": inputs["passages"]}
        embeddings = model(**texts, sub_batch_size=self.args.sub_batch_size)
        rows = {name: value for name, value in inputs.items() if name not in texts}
        loss = self.training_objective(embeddings["queries"], embeddings["passages"], **rows)
        return (loss, embeddings) if return_outputs else loss

    # --- saving and loading -----------------------------------------------------------------------------------------

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train, or go on with the run of a checkpoint (`latest`, or True, is the newest complete one).

        Raises:
            UsageError: the checkpoint is not whole, or its run had other data.
        """
        if not resume_from_checkpoint:
            return super().train(None, trial, ignore_keys_for_eval)
        given = checkpoint.LATEST if resume_from_checkpoint is True else str(resume_from_checkpoint)
        found = checkpoint.find_checkpoint(given, Path(cast("str", self.args.output_dir)), self.args.world_size)
        checkpoint.check_data(found, self.data.fingerprint)
        return super().train(str(found), trial, ignore_keys_for_eval)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a complete checkpoint of this step, or none."""
        final = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        directory = str(checkpoint.stage(final))
        self.store_flos()
        if self.args.should_save:
            checkpoint.open_stage(final)
        self.accelerator.wait_for_everyone()
        self.save_model(directory, _internal_call=True)
        self._save_optimizer_and_scheduler(directory)
        self._save_scaler(directory)
        self._save_rng_state(directory)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.state.stateful_callbacks = cast("Any", self._callback_states())
            self.state.save_to_json(str(checkpoint.stage(final) / checkpoint.STATE))
            checkpoint.commit(final, arguments=self._arguments(), data=self.data.fingerprint, versions=_versions())
            checkpoint.rotate(final, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Write a model directory: weights, configuration, tokenizer and settings."""
        if not self.args.should_save:
            return
        directory = Path(output_dir if output_dir is not None else cast("str", self.args.output_dir))
        directory.mkdir(parents=True, exist_ok=True)
        cast("BiEncoder", self.accelerator.unwrap_model(self.model)).write(directory, state_dict)
        cast("PreTrainedTokenizerBase", self.processing_class).save_pretrained(str(directory))
        self.settings.write(directory)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the weights strictly; transformers would only warn about names that do not fit."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, cast("Any", model))
            return
        self.model.read_weights(Path(resume_from_checkpoint))

    def _callback_states(self) -> dict[str, Any]:
        """The states of callbacks by class; transformers appends to this list at each save and restores the oldest."""
        states: dict[str, list[Any]] = {}
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                states.setdefault(type(callback).__name__, []).append(callback.state())
        return {name: found[0] if len(found) == 1 else found for name, found in states.items()}

    def _arguments(self) -> dict[str, Any]:
        """Every argument of the run, for the manifest."""
        own = {**self.data.options, "world_size": self.args.world_size}
        return {**self.args.to_dict(), **dataclasses.asdict(self.settings), **own}


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "accelerate", "datasets", "numpy", "resumecheck")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
