"""What it does to a resumed run that one of its arguments is not what it was: every argument is in one table.

`recorded_arguments` are what a checkpoint holds, `effect_of` says what a difference does. Nothing goes by the beginning
of a name: an argument that no table has, say of a newer transformers, is not known to be harmless.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Literal

import xxhash

if TYPE_CHECKING:
    from resumecheck.embedding.arguments import DataArguments, EmbeddingTrainingArguments, ModelArguments

Effect = Literal[
    "harmless",
    "changes the trajectory",
    "ignored: the checkpoint's value is used",
    "refused",
    "not known to be harmless",
]
#: Effects with which a resumed run may not be the same run.
HARMFUL: tuple[Effect, ...] = ("refused", "changes the trajectory", "not known to be harmless")

#: Arguments that are not compared -> why a difference cannot matter, or what is compared in their place.
NOT_COMPARED = {
    "model_name_or_path": "the weights are the checkpoint's; configuration and tokenizer of the model are compared",
    "init_from_checkpoint": "the same",
    "tokenizer_name": "the tokenizer is compared",
    "additional_special_tokens": "the tokenizer that has them is compared",
    "from_peft": "the weights are the checkpoint's; what LoRA is set to is compared",
    "train_data": "the content of the files is compared, and another is refused",
    "cache_dir": "where downloads are kept",
    "cache_path": "where the data is kept in Arrow form",
    "overwrite_output_dir": "excludes a resume",
    "resume_from_checkpoint": "says how this run is resumed",
    "allow_missing_state": "says how this run is resumed",
    "verify_resume": "says how this run is resumed",
    "record": "where the run is recorded; recording changes no step",
    "local_rank": "is another in each process",
    "hub_token": "a secret, which is not recorded",
    "push_to_hub_token": "a secret, which is not recorded",
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Arguments with which the checkpoint's weights or optimizer do not fit, or that cannot be used at all.
REFUSED = _names("""
    use_lora lora_rank target_modules modules_to_save unified_finetuning colbert_dim
    fsdp fsdp_config fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap
    save_only_model ignore_data_skip auto_find_batch_size eval_strategy load_best_model_at_end push_to_hub
    debug label_smoothing_factor
""")

#: Arguments that are loaded with the state, whatever is given: from optimizer.pt, and from trainer_state.json.
IGNORED = {
    "optimizer": frozenset({"learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"}),
    "state": frozenset({"save_steps", "logging_steps", "eval_steps"}),
}

#: Arguments that the learning rates to come depend on.
SCHEDULE = frozenset(
    {"lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio", "num_train_epochs", "max_steps"}
)

#: Arguments that the batches, the loss, its gradient or the step depend on, be it by rounding alone. The last lines are
#: of earlier versions of transformers, and of the launch.
TRAJECTORY = SCHEDULE | _names("""
    trust_remote_code attn_implementation lora_alpha lora_dropout model_config tokenizer

    train_group_size max_example_num_per_dataset shuffle_ratio query_max_len passage_max_len pad_to_multiple_of
    query_instruction_for_retrieval query_instruction_format passage_instruction_for_retrieval
    passage_instruction_format retrieval_use_examples icl_suffix_str example_query_max_len example_passage_max_len
    knowledge_distillation same_dataset_within_batch small_threshold drop_threshold

    temperature sentence_pooling_method normalize_embeddings negatives_cross_device kd_loss_type use_mrl mrl_dims
    sub_batch_size fix_position_embedding use_self_distill self_distill_start_step fix_encoder

    per_device_train_batch_size gradient_accumulation_steps optim optim_args optim_target_modules max_grad_norm
    average_tokens_across_devices bf16 fp16 tf32 activation_checkpointing activation_checkpointing_kwargs
    gradient_checkpointing gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode
    use_liger_kernel liger_kernel_config use_cache neftune_noise_alpha full_determinism seed data_seed use_cpu
    restore_callback_states_from_checkpoint accelerator_config parallelism_config dataloader_drop_last
    ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend deepspeed

    no_cuda use_mps_device jit_mode_eval use_ipex half_precision_backend fp16_opt_level fp16_backend adafactor
    group_by_length torchdynamo split_batches dispatch_batches per_gpu_train_batch_size tpu_num_cores mp_parameters
    world_size device n_gpu _n_gpu
""")

#: Arguments that no weight depends on: of logging, of what is kept and where, of evaluation (there is none during
#: training), of how a batch is brought to the model, and of what this trainer has ways of its own for.
HARMLESS = _names("""
    logging_strategy logging_first_step log_on_each_node logging_nan_inf_filter logging_dir log_level log_level_replica
    include_num_input_tokens_seen include_tokens_per_second disable_tqdm report_to run_name project trackio_space_id
    trackio_bucket_id trackio_static_space_id skip_memory_metrics tpu_metrics_debug

    output_dir save_merged_lora_model save_strategy save_on_each_node save_total_limit save_safetensors
    enable_jit_checkpoint hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision push_to_hub_model_id
    push_to_hub_organization

    eval_delay per_device_eval_batch_size per_gpu_eval_batch_size prediction_loss_only eval_on_start
    eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics batch_eval_metrics
    include_inputs_for_metrics bf16_full_eval fp16_full_eval metric_for_best_model greater_is_better past_index
    do_train do_eval do_predict label_names ray_scope use_legacy_prediction_loop

    dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context dataloader_in_order torch_empty_cache_steps ddp_timeout

    remove_unused_columns train_sampling_strategy length_column_name
""")


def effect_of(name: str, missing: set[str]) -> Effect:
    """What it does to a resumed run that this argument differs; `missing` are the parts that the checkpoint lacks."""
    if name in IGNORED["optimizer"]:
        lost = missing & {"optimizer", "scheduler"}
        return "changes the trajectory" if lost else "ignored: the checkpoint's value is used"
    if name in IGNORED["state"]:
        return "ignored: the checkpoint's value is used"
    if name in REFUSED:
        return "refused"
    if name in TRAJECTORY or name.partition(".")[0] in TRAJECTORY:  # a key of the configuration of the model
        return "changes the trajectory"
    return "harmless" if name in HARMLESS else "not known to be harmless"


def recorded_arguments(
    model: ModelArguments, data: DataArguments, training: EmbeddingTrainingArguments
) -> dict[str, Any]:
    """Every argument that is compared, as it was given."""
    given = {**training.to_dict(), **dataclasses.asdict(data), **dataclasses.asdict(model)}
    return {name: value for name, value in given.items() if name not in NOT_COMPARED}


def in_effect(bi_encoder: Any, tokenizer: Any) -> dict[str, Any]:
    """What became of the arguments of the model: in the place of what was given, and what a model brings along.

    Without LoRA its options have no value, since they have no effect; its names of modules are sorted, as their order
    has none.
    """
    encoder, heads = bi_encoder.encoder, bi_encoder.heads
    lora: Any = encoder.peft_config[encoder.active_adapter] if bi_encoder.adapted else None
    config = {
        name: value
        for name, value in encoder.config.to_diff_dict().items()
        if name not in ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
    }
    return {
        "use_lora": lora is not None,
        "lora_rank": lora and lora.r,
        "lora_alpha": lora and lora.lora_alpha,
        "lora_dropout": lora and lora.lora_dropout,
        "target_modules": lora and sorted(lora.target_modules),
        "modules_to_save": sorted(lora.modules_to_save) if lora and lora.modules_to_save else None,
        "colbert_dim": heads and heads.colbert_linear.out_features,
        "model_config": config,
        "tokenizer": _digest(tokenizer),
    }


def _digest(tokenizer: Any) -> str:
    """Of everything that makes tokens of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules = {"vocabulary": sorted(tokenizer.get_vocab().items(), key=str), "kind": type(tokenizer).__name__}
    else:
        rules = json.loads(backend.to_str())
        del rules["truncation"], rules["padding"]  # as it was last used
    rules["special"] = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    rules["sides"] = [tokenizer.padding_side, tokenizer.truncation_side]
    return xxhash.xxh3_128_hexdigest(json.dumps(rules, sort_keys=True).encode())
