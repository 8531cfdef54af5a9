"""`resumecheck train`: options in, checkpoints and a model directory out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers import set_seed

from resumecheck.embedding import checkpoint, lora
from resumecheck.embedding.arguments import (
    DataArguments,
    EmbeddingTrainingArguments,
    ModelArguments,
    parse_train_arguments,
    settings_of,
)
from resumecheck.embedding.collator import Collator
from resumecheck.embedding.command import USAGE_STATUS
from resumecheck.embedding.dataset import SameDataset, load_train_dataset
from resumecheck.embedding.effects import in_effect, recorded_arguments
from resumecheck.embedding.end_of_text import end_texts
from resumecheck.embedding.heads import load_heads
from resumecheck.embedding.in_context import check_room
from resumecheck.embedding.model import BiEncoder, check_dimensions, check_lengths, load_encoder, load_tokenizer
from resumecheck.embedding.sampler import steps_of
from resumecheck.embedding.settings import read_settings
from resumecheck.embedding.trainer import EmbeddingTrainer
from resumecheck.errors import UsageError

_LOG = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the options say; returns the exit status, 2 for wrong usage with one message on stderr."""
    # Workers are forked from a process whose tokenizer has run; the tokenizer's own threads would not survive that.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        model, data, training = parse_train_arguments(argv)
        resume_from = prepare_output_dir(training)
        trainer = build_trainer(model, data, training)
        if training.record:
            from resumecheck import Recorder

            trainer.add_callback(Recorder(training.record))
        # Only now: a mistake in another option must not cost the checkpoints of the earlier run.
        if training.overwrite_output_dir and training.should_save:
            checkpoint.remove_all(Path(str(training.output_dir)))
        if resume_from is not None:
            print(f"resuming from {resume_from}", file=sys.stderr)
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
        trainer.save_model()
        if trainer.model.adapted and training.should_save:
            lora.write_trained(trainer.model, Path(str(training.output_dir)), merged=model.save_merged_lora_model)
    except UsageError as error:
        print(f"resumecheck train: {error}", file=sys.stderr)
        return USAGE_STATUS
    return 0


def build_trainer(model: ModelArguments, data: DataArguments, training: EmbeddingTrainingArguments) -> EmbeddingTrainer:
    """The trainer that the options describe, not yet started.

    Raises:
        UsageError: the model or the data cannot be used.
    """
    source = _source_of_weights(model)
    # Before the encoder: weights that its directory does not hold (say, an unused pooler) are drawn at random.
    set_seed(training.seed)
    options = {"cache_dir": model.cache_dir, "trust_remote_code": model.trust_remote_code}
    encoder = load_encoder(source, attention=model.attn_implementation, **options)
    if training.fix_position_embedding:
        for name, parameter in encoder.named_parameters():
            if "position_embeddings" in name:
                parameter.requires_grad_(False)
    tokenizer = load_tokenizer(model.tokenizer_name or source, **options)
    if lora.is_decoder(encoder.config):
        end_texts(tokenizer)
    added = lora.add_special_tokens(encoder, tokenizer, model.additional_special_tokens or ())
    usual = "last_token" if lora.is_decoder(encoder.config) else "cls"
    pooling = training.sentence_pooling_method or read_settings(source, pooling=usual).sentence_pooling_method
    adapted = lora.uses_lora(model, encoder.config)
    heads = None
    if training.unified_finetuning:
        if adapted:
            raise UsageError("--unified_finetuning: heads are not trained beside LoRA; give --use_lora False")
        heads = load_heads(
            source,
            encoder,
            tokenizer,
            colbert_dim=model.colbert_dim,
            seed=training.seed,
            cache_dir=model.cache_dir,
        )
        if training.fix_encoder:
            encoder.requires_grad_(False)
    settings = settings_of(data, training, pooling)
    check_lengths(encoder, settings)
    check_room(tokenizer, settings)
    check_dimensions(encoder, training.mrl_dims)
    same_dataset = None
    if data.same_dataset_within_batch:
        same_dataset = SameDataset(training.train_batch_size, data.small_threshold, data.drop_threshold)
    dataset = load_train_dataset(
        data.train_data,
        settings,
        group_size=data.train_group_size,
        seed=training.seed if training.data_seed is None else training.data_seed,
        cache_path=data.cache_path,
        max_examples=data.max_example_num_per_dataset,
        shuffle_ratio=data.shuffle_ratio,
        distillation=data.knowledge_distillation,
        same_dataset=same_dataset,
    )
    if dataset.pools is not None:
        unused = sum(not steps_of(pool, training.world_size) for pool in dataset.pools)
        if unused == len(dataset.pools):
            raise UsageError(
                f"--same_dataset_within_batch: none of {unused} data sets has the rows for a batch in each of "
                f"{training.world_size} process(es); give a smaller --per_device_train_batch_size"
            )
        if unused:
            _LOG.warning("%d of %d data sets are not used: too few rows for a batch", unused, len(dataset.pools))
    if same_dataset is None and training.dataloader_drop_last and len(dataset) < training.train_batch_size:
        raise UsageError(
            f"--dataloader_drop_last: the data has {len(dataset)} rows, less than one batch of "
            f"{training.train_batch_size}; leave the option out or give a smaller --per_device_train_batch_size"
        )
    bi_encoder = BiEncoder(
        lora.with_lora(encoder, model, added) if adapted else encoder,
        pooling=pooling,
        normalize=training.normalize_embeddings,
        heads=heads,
    )
    return EmbeddingTrainer(
        bi_encoder,
        training,
        settings=settings,
        train_dataset=dataset,
        data_collator=Collator(tokenizer, settings, data.pad_to_multiple_of),
        tokenizer=tokenizer,
        arguments={**recorded_arguments(model, data, training), **in_effect(bi_encoder, tokenizer)},
    )


def prepare_output_dir(training: EmbeddingTrainingArguments) -> Path | None:
    """The checkpoint to resume from, None for a new run; refuses to mix a new run into the files of another.

    Raises:
        UsageError: the checkpoint cannot be used, or the output directory is not empty.
    """
    output_dir = Path(str(training.output_dir))
    if training.resume_from_checkpoint:
        return checkpoint.find_checkpoint(
            training.resume_from_checkpoint, output_dir, training.world_size, training.allow_missing_state
        )
    for path in (output_dir, *output_dir.parents):
        if path.exists() and not path.is_dir():
            what = "this" if path == output_dir else path
            raise UsageError(f"--output_dir {output_dir}: {what} is a file, expected a directory")
    if training.process_index != 0 or not output_dir.exists():
        return None
    if set(output_dir.iterdir()) <= set(checkpoint.leftovers(output_dir)):  # a run killed in its first save
        return None
    if not training.overwrite_output_dir:
        found = checkpoint.newest_whole(output_dir, training.world_size)
        go_on = "" if found is None else f"\nTo go on with its run: --resume_from_checkpoint {found}"
        raise UsageError(
            f"--output_dir {output_dir}: the directory is not empty{go_on}"
            "\nTo start anew in it, removing its checkpoints: --overwrite_output_dir"
        )
    return None


def _source_of_weights(model: ModelArguments) -> str:
    """The directory or name that the weights come from."""
    if model.init_from_checkpoint:
        if not Path(model.init_from_checkpoint).is_dir():
            raise UsageError(f"--init_from_checkpoint {model.init_from_checkpoint}: no such directory")
        problem = checkpoint.weights_defect(Path(model.init_from_checkpoint))
        if problem is not None:
            raise UsageError(f"--init_from_checkpoint {model.init_from_checkpoint}: {problem}")
        return model.init_from_checkpoint
    source = str(model.model_name_or_path)
    if checkpoint.is_checkpoint(source):
        raise UsageError(
            f"--model_name_or_path {source}: this is a checkpoint of a run, not a model\n"
            f"To go on with that run: --resume_from_checkpoint {source} (and its own --model_name_or_path)\n"
            f"To start a new run from its weights: --init_from_checkpoint {source}"
        )
    return source


if __name__ == "__main__":
    sys.exit(main())
