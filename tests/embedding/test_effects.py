"""No argument falls through: each one that differs on resume is reported, with what it does."""

import copy
import dataclasses
import functools
import json
import shutil

import pytest
import torch

from resumecheck.embedding.arguments import DataArguments, EmbeddingTrainingArguments, ModelArguments
from resumecheck.embedding.checkpoint import read_manifest
from resumecheck.embedding.effects import NOT_COMPARED, effect_of, recorded_arguments
from resumecheck.embedding.restore import differences
from resumecheck.embedding.train import main
from tests.embedding import tiny

TRAJECTORY, HARMLESS, REFUSED = "changes the trajectory", "harmless", "refused"
IGNORED, UNKNOWN = "ignored: the checkpoint's value is used", "not known to be harmless"

#: Thought through once more, apart from the tables: by which of its ways an argument could reach a weight.
EXPECTED = {
    REFUSED: "use_lora lora_rank target_modules modules_to_save unified_finetuning colbert_dim fsdp fsdp_config "
    "save_only_model ignore_data_skip auto_find_batch_size eval_strategy load_best_model_at_end push_to_hub debug "
    "label_smoothing_factor",
    IGNORED: "learning_rate weight_decay adam_beta1 adam_beta2 adam_epsilon save_steps logging_steps eval_steps",
    HARMLESS: "output_dir save_merged_lora_model logging_strategy logging_first_step log_on_each_node "
    "logging_nan_inf_filter include_num_input_tokens_seen log_level log_level_replica disable_tqdm report_to run_name "
    "project trackio_space_id trackio_bucket_id trackio_static_space_id skip_memory_metrics save_strategy "
    "save_on_each_node save_total_limit enable_jit_checkpoint hub_private_repo hub_model_id hub_strategy "
    "hub_always_push hub_revision eval_delay per_device_eval_batch_size prediction_loss_only eval_on_start "
    "eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics batch_eval_metrics "
    "bf16_full_eval fp16_full_eval metric_for_best_model greater_is_better do_train do_eval do_predict label_names "
    "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor "
    "dataloader_multiprocessing_context dataloader_in_order torch_empty_cache_steps ddp_timeout remove_unused_columns "
    "train_sampling_strategy length_column_name "
    "logging_dir save_safetensors past_index ray_scope include_tokens_per_second tpu_metrics_debug "
    "include_inputs_for_metrics push_to_hub_model_id push_to_hub_organization use_legacy_prediction_loop "
    "per_gpu_eval_batch_size",
}
CLASS = {name: effect for effect, names in EXPECTED.items() for name in names.split()}
#: What differs in any two resumes or is compared by another thing than its name.
ELSEWHERE = (
    "model_name_or_path init_from_checkpoint tokenizer_name additional_special_tokens from_peft train_data cache_dir "
    "cache_path overwrite_output_dir resume_from_checkpoint allow_missing_state verify_resume record local_rank "
    "hub_token push_to_hub_token"
)


@functools.cache
def arguments():
    return ModelArguments(), DataArguments(), EmbeddingTrainingArguments(output_dir="out", use_cpu=True)


FIELDS = [
    (place, field.name)
    for place, part in enumerate((ModelArguments, DataArguments, EmbeddingTrainingArguments))
    for field in dataclasses.fields(part)
]


class Parallelism:
    """Stands for accelerate's, of which arguments ask this."""

    def to_json(self):
        return {"dp_replicate_size": 2}


def changed(name, value):
    """Another value, whatever it means."""
    if name == "parallelism_config":
        return Parallelism()
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return [*value, "other"] if isinstance(value, list) else "other"


@pytest.mark.parametrize(("place", "name"), FIELDS, ids=[name for _, name in FIELDS])
def test_a_changed_value_of_any_argument_is_reported_with_what_it_does(place, name):
    before = recorded_arguments(*arguments())
    parts = [copy.copy(part) for part in arguments()]
    setattr(parts[place], name, changed(name, getattr(parts[place], name)))
    found = differences(json.loads(json.dumps(before, default=str)), recorded_arguments(*parts), set())
    if name in ELSEWHERE.split():
        assert not found
        assert NOT_COMPARED[name]
    else:
        assert [(one.name, one.effect) for one in found] == [(name, CLASS.get(name, TRAJECTORY))]


def test_what_a_newer_transformers_brings_is_not_known_to_be_harmless():
    assert effect_of("logging_of_tomorrow", set()) == UNKNOWN
    (found,) = differences({"seed": 1}, {"seed": 1, "eval_of_tomorrow": 2}, set())
    assert (found.option, found.before, found.effect) == ("--eval_of_tomorrow", "not there", UNKNOWN)
    (found,) = differences({"seed": 1, "of_yesterday": 2}, {"seed": 1}, set())
    assert (found.option, found.now, found.effect) == ("--of_yesterday", "not there", UNKNOWN)
    assert not differences({"seed": 1}, {"seed": 1, "run_name": "a"}, set())


# --- in real runs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A decoder with LoRA after 4 of 8 steps, as (directory of the model, options, output directory)."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("trained")
    decoder = tiny.write_decoder(directory / "decoder")
    data = tiny.write_rows(directory / "train.jsonl", tiny.rows(tiny.ROWS))
    plain = {"save_strategy": "steps", "save_steps": 4, "lora_rank": 2, "lora_alpha": 8}
    make = functools.partial(tiny.train_options, data=data, **plain)
    assert main(make(decoder, output_dir=directory / "out")) == 0
    return decoder, make, directory / "out"


@pytest.fixture
def resumed(trained, tmp_path, capfd):
    """Resume a copy from step 4 with these changes; returns exit status, what is said, final weights."""
    decoder, make, run = trained
    shutil.copytree(run / "checkpoint-4", tmp_path / "out" / "checkpoint-4")

    def resume(model=decoder, **changes):
        capfd.readouterr()
        given = {"resume_from_checkpoint": "latest", "save_strategy": "no", "output_dir": tmp_path / "out", **changes}
        status = main(make(model, **given))
        weights = tmp_path / "out" / "adapter_model.safetensors"
        return status, capfd.readouterr().err, weights.read_bytes() if weights.exists() else None

    return resume


def test_what_is_recorded_is_what_is_in_effect(trained):
    recorded = read_manifest(trained[2] / "checkpoint-4").arguments
    found = {name: recorded[name] for name in ("use_lora", "lora_rank", "lora_alpha", "colbert_dim", "device")}
    assert found == {"use_lora": True, "lora_rank": 2, "lora_alpha": 8, "colbert_dim": None, "device": "cpu"}
    assert recorded["model_config"]["model_type"] == "llama"
    assert not recorded.keys() & NOT_COMPARED.keys()


@pytest.mark.slow
def test_everything_that_is_called_harmless_changes_no_weight_when_it_all_differs_at_once(trained, resumed):
    values = {
        "logging_strategy": "epoch", "logging_first_step": True, "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": True, "log_level": "error", "disable_tqdm": False, "run_name": "other",
        "project": "other", "skip_memory_metrics": False, "save_strategy": "epoch", "save_on_each_node": True,
        "save_total_limit": 1, "hub_strategy": "end", "hub_model_id": "other", "eval_delay": 3,
        "per_device_eval_batch_size": 3, "prediction_loss_only": True, "eval_do_concat_batches": False,
        "eval_accumulation_steps": 2, "batch_eval_metrics": True, "metric_for_best_model": "f1",
        "greater_is_better": True, "do_train": True, "do_eval": True, "do_predict": True, "label_names": "a",
        "dataloader_num_workers": 2, "dataloader_pin_memory": False, "dataloader_persistent_workers": True,
        "dataloader_prefetch_factor": 3, "dataloader_in_order": False, "torch_empty_cache_steps": 1,
        "ddp_timeout": 9, "remove_unused_columns": False, "length_column_name": "a",
        "train_sampling_strategy": "group_by_length", "bf16_full_eval": True,
    }  # fmt: skip
    known = {field.name for field in dataclasses.fields(EmbeddingTrainingArguments)}  # of this transformers
    values = {name: value for name, value in values.items() if name in known}
    assert {CLASS[name] for name in values} == {HARMLESS}
    status, text, weights = resumed(verify_resume=True, **values)
    assert status == 0, text
    told = [line for line in text.splitlines() if line.endswith(f": {HARMLESS}")]
    assert len(told) >= len(values)
    assert weights == (trained[2] / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_another_alpha_of_lora_changes_the_trajectory_and_says_so(trained, resumed):
    status, text, weights = resumed(lora_alpha=9)
    assert status == 0
    assert f"  --lora_alpha was 8.0, now 9.0: {TRAJECTORY}" in text
    assert weights != (trained[2] / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lora_rank": 3}, "--lora_rank was 2, now 3"),
        ({"use_lora": False}, "--use_lora was true, now false"),
        ({"target_modules": "q_proj"}, '--target_modules was ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj"'),
        ({"modules_to_save": "norm"}, '--modules_to_save was null, now ["norm"]'),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_its_option(resumed, changes, told):
    status, text, weights = resumed(**changes)
    assert (status, weights) == (2, None)
    assert "its state does not fit this run: " in text
    assert told in text
    assert "--init_from_checkpoint" in text


@pytest.mark.slow
def test_a_model_that_was_moved_is_the_same_model_and_one_with_another_configuration_is_not(trained, resumed, tmp_path):
    decoder = trained[0]
    moved = shutil.copytree(decoder, tmp_path / "moved")
    status, text, weights = resumed(moved, verify_resume=True)
    assert status == 0, text
    assert weights == (trained[2] / "adapter_model.safetensors").read_bytes()
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.5}))
    status, text, _ = resumed(moved, verify_resume=True)
    assert status == 2
    assert f"  model_config.attention_dropout was not there, now 0.5: {TRAJECTORY}" in text or (
        f"  model_config.attention_dropout was 0.0, now 0.5: {TRAJECTORY}" in text
    )
    assert "--verify_resume: this would not be the same run: model_config.attention_dropout" in text


def test_another_tokenizer_is_not_the_same_run(trained, resumed, tmp_path):
    other = shutil.copytree(trained[0], tmp_path / "other")
    path = other / "tokenizer.json"
    rules = json.loads(path.read_text())
    rules["normalizer"]["lowercase"] = not rules["normalizer"]["lowercase"]
    path.write_text(json.dumps(rules))
    config = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**config, "do_lower_case": False}))
    status, text, _ = resumed(tokenizer_name=other, verify_resume=True)
    assert status == 2
    assert "--verify_resume: this would not be the same run: tokenizer" in text
