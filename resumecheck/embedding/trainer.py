"""transformers' Trainer with the data order, the loss and the checkpoints of this package."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.metadata
import itertools
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import xxhash
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput

from resumecheck.embedding import checkpoint, restore, zero
from resumecheck.embedding.arguments import EmbeddingTrainingArguments
from resumecheck.embedding.checkpoint import missing_state, read_manifest
from resumecheck.embedding.collator import Collator
from resumecheck.embedding.dataset import TrainDataset
from resumecheck.embedding.effects import HARMFUL, NOT_COMPARED, SCHEDULE
from resumecheck.embedding.first_step import FirstStep
from resumecheck.embedding.losses.objective import Objective
from resumecheck.embedding.losses.unified import UnifiedObjective
from resumecheck.embedding.model import BiEncoder
from resumecheck.embedding.sampler import EpochBatchSampler, PoolBatchSampler
from resumecheck.embedding.settings import EmbeddingSettings
from resumecheck.errors import UsageError
from resumecheck.state.streams import read_streams, set_streams


class EmbeddingTrainer(Trainer):
    """Trains a `BiEncoder`; resuming it is exact.

    What a step depends on is either in the checkpoint or a pure function of (seed, epoch, row); the epoch follows from
    `state.global_step`, which the checkpoint holds. `arguments` are compared on resume beside those of training.
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
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            model=model,
            args=args,
            train_dataset=cast("Any", train_dataset),
            data_collator=cast("Any", data_collator),
            processing_class=tokenizer,
        )
        deepspeed = self._deepspeed_settings()
        if deepspeed is not None:
            zero.check_settings(deepspeed)
        self.settings = settings
        self.given = dict(arguments or {})
        self.data: TrainDataset = train_dataset
        self.first_step = FirstStep()
        self.add_callback(self.first_step)
        self.steps_per_epoch = 1
        self.batches: EpochBatchSampler | PoolBatchSampler | None = None
        objective = Objective(
            temperature=args.temperature,
            normalize=args.normalize_embeddings,
            dimensions=tuple(args.mrl_dims),
            kd_loss_type=args.kd_loss_type,
            cross_device=args.negatives_cross_device,
        )
        self.training_objective: Objective | UnifiedObjective = (
            objective if model.heads is None else UnifiedObjective(dense=objective)
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
        self.batches = batches
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
        if self.distills_itself():
            rows["self_distill"] = True
        loss = self.training_objective(embeddings["queries"], embeddings["passages"], **rows)
        self.first_step.on_loss(loss)
        return (loss, embeddings) if return_outputs else loss

    def distills_itself(self) -> bool:
        """Whether M3's scores learn from their sum, by the step that the run has reached."""
        return self.args.use_self_distill and self.state.global_step > self.args.self_distill_start_step

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
            with zero.contradictions_named():
                return super().train(None, trial, ignore_keys_for_eval)
        given = checkpoint.LATEST if resume_from_checkpoint is True else str(resume_from_checkpoint)
        found = checkpoint.find_checkpoint(
            given, Path(cast("str", self.args.output_dir)), self.args.world_size, self.args.allow_missing_state
        )
        checkpoint.check_data(found, self.data.fingerprint)
        before = checkpoint.read_manifest(found).arguments
        zero.check_launch(found, before, self._deepspeed_settings(), self.args.world_size)
        restore.check_arguments(str(found), before, self._arguments())
        plain = zero.plain_state_only() if self.is_deepspeed_enabled else contextlib.nullcontext()
        with zero.contradictions_named(), plain:
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
            checkpoint.commit(
                final,
                arguments=self._arguments(),
                data=self.data.fingerprint,
                versions=_versions(),
                next_batch=self._next_batch(),
            )
            checkpoint.rotate(final, self.args.save_total_limit)
        self.accelerator.wait_for_everyone()
        self.first_step.record_after(final)

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
        self.model.read_weights(Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both, or the one that is there; then tell what was restored."""
        if checkpoint is None:
            return
        directory = Path(checkpoint)
        missing = missing_state(directory, self.args.world_size)
        try:
            if "optimizer" not in missing and not self.is_deepspeed_enabled:
                _check_kind(self.optimizer, _load(directory / "optimizer.pt"))
            if not missing & {"optimizer", "scheduler"}:
                super()._load_optimizer_and_scheduler(checkpoint)
            elif self.is_deepspeed_enabled:
                pass  # it has loaded the optimizer; the schedule is missing
            elif "optimizer" not in missing:  # where one of them is missing, transformers drops the other too
                cast("Any", self.optimizer).load_state_dict(_load(directory / "optimizer.pt"))
            elif "scheduler" not in missing:
                scheduler = cast("Any", self.lr_scheduler)
                scheduler.load_state_dict(_load(directory / "scheduler.pt"))
                for group, rate in zip(cast("Any", self.optimizer).param_groups, scheduler.get_last_lr(), strict=True):
                    group["lr"] = rate
        except (ValueError, KeyError, RuntimeError) as error:
            raise UsageError(
                f"--resume_from_checkpoint {checkpoint}: its optimizer or learning rate does not fit this run's: "
                f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}\n"
                "Give the arguments of the run, above all --optim and --lr_scheduler_type."
            ) from error
        self._tell_restored(directory, missing)

    def _tell_restored(self, directory: Path, missing: set[str]) -> None:
        """Print what was restored and which arguments differ.

        Raises:
            UsageError: with `--verify_resume`, where the run would not be the same run.
        """
        manifest = read_manifest(directory)
        changed = restore.differences(manifest.arguments, self._arguments(), missing)
        parts = [restore.Restored("weights", "restored"), *self._restored_state(directory, missing, changed)]
        next_batch = self._next_batch()
        where = f"step {self.state.global_step}, epoch {self.state.epoch or 0:.2f}"
        if not manifest.next_batch:
            position = restore.Restored("position in the data", "absent", f"{where}; no next batch is recorded")
        elif next_batch == manifest.next_batch:
            position = restore.Restored("position in the data", "restored", f"{where}; the next batch is the recorded")
        else:
            position = restore.Restored("position in the data", "changed", f"{where}; the next batch is another")
        parts.append(position)
        first_step = self.first_step.compare_after(directory) if self.args.verify_resume else ""
        if self.args.process_index == 0:
            print(restore.table(manifest.step, parts, changed), file=sys.stderr)
            if first_step:
                print(f"  the first step {first_step}", file=sys.stderr)
        other = [f"{part.part} ({part.status})" for part in parts if part.status != "restored"]
        other += [one.option for one in changed if one.effect in HARMFUL]
        if other and self.args.verify_resume:
            raise UsageError(
                f"--verify_resume: this would not be the same run: {', '.join(other)}\n"
                "Give the arguments and the files of the run, or leave --verify_resume out."
            )

    def _restored_state(
        self, directory: Path, missing: set[str], changed: list[restore.Difference]
    ) -> list[restore.Restored]:
        """The parts that have files of their own, each held against its file where one process holds it whole."""
        found: list[restore.Restored] = []
        names = {"optimizer": "optimizer", "scheduler": "scheduler", "rng": "random streams"}
        schedule = [one.option for one in changed if one.name in SCHEDULE]
        for kind, name in names.items():
            if kind in missing:
                found.append(restore.Restored(name, "absent", "starts anew"))
            elif kind == "scheduler" and schedule:
                found.append(restore.Restored(name, "changed", f"other rates to come: {', '.join(schedule)}"))
            elif kind != "rng" and not self._is_as_in_its_file(directory, kind):
                found.append(restore.Restored(name, "changed", "is not what its file holds"))
            else:
                found.append(restore.Restored(name, "restored"))
        return found

    def _is_as_in_its_file(self, directory: Path, kind: str) -> bool:
        """Whether optimizer or scheduler are, bit for bit, what the checkpoint holds for this process."""
        if kind == "optimizer" and self.is_deepspeed_enabled:
            live = cast("Any", self.deepspeed).optimizer.state_dict()
            recorded = zero.optimizer_state(directory, self.args.process_index)
            return restore.same(zero.tensors_of(live), zero.tensors_of(recorded))
        live = cast("Any", self.optimizer if kind == "optimizer" else self.lr_scheduler).state_dict()
        return restore.same(live, _load(directory / f"{kind}.pt"))

    def _next_batch(self) -> str:
        """The digest of the samples, over all processes, that the first batch after this step has."""
        if self.batches is None:
            return ""
        digest, batches = xxhash.xxh3_128(), copy.copy(self.batches)
        epoch, step = divmod(self.state.global_step, self.steps_per_epoch)
        batches.epoch = lambda: epoch
        start = step * self.args.gradient_accumulation_steps * self.args.world_size
        streams = read_streams()  # a data set of another's may draw
        for batch in itertools.islice(iter(batches), start, start + self.args.world_size):
            digest.update(repr([self.data[sample] for sample in batch]).encode())
        set_streams(streams)
        return digest.hexdigest()

    def _callback_states(self) -> dict[str, Any]:
        """The states of callbacks by class; transformers appends to this list at each save and restores the oldest."""
        states: dict[str, list[Any]] = {}
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                states.setdefault(type(callback).__name__, []).append(callback.state())
        return {name: found[0] if len(found) == 1 else found for name, found in states.items()}

    def _arguments(self) -> dict[str, Any]:
        """Every argument of the run, for the manifest: as given, and in its place what became of it."""
        launch = {
            "world_size": self.args.world_size,
            "device": self.args.device.type,
            "n_gpu": self.args.n_gpu,
            "deepspeed": self._deepspeed_settings(),
        }
        own = {**dataclasses.asdict(self.settings), **self.data.options, **launch}
        found = {**self.args.to_dict(), **self.given, **own}
        return {name: value for name, value in found.items() if name not in NOT_COMPARED}

    def _deepspeed_settings(self) -> dict[str, Any] | None:
        """What the file of `--deepspeed` says, with its `auto`s filled in once training is prepared."""
        plugin = getattr(self.accelerator.state, "deepspeed_plugin", None)
        return None if plugin is None else dict(plugin.hf_ds_config.config)


def _check_kind(optimizer: Any, recorded: dict[str, Any]) -> None:
    """ValueError where the state is that of another kind of optimizer, which torch would load without a word."""
    added = {"params", "initial_lr"}
    now, before = (set(state["param_groups"][0]) - added for state in (optimizer.state_dict(), recorded))
    if now != before:
        names = ", ".join(sorted(now ^ before))
        raise ValueError(f"another kind of optimizer wrote it, with other settings ({names})")


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "accelerate", "datasets", "numpy", "resumecheck")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}
