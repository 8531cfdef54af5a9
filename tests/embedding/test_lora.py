"""Decoders with LoRA: only the low-rank weights are trained, the resume is exact, the result loads elsewhere."""

import functools

import pytest
import torch

from resumecheck.embedding.train import main
from tests.embedding import targets, tiny


@pytest.fixture(scope="session")
def decoder(tmp_path_factory):
    return tiny.write_decoder(tmp_path_factory.mktemp("decoder"))


def options(decoder, data, output_dir, **changes):
    return tiny.train_options(decoder, data, output_dir, lora_rank=2, lora_dropout=0.1, **changes)


def trainer_of(decoder, data, tmp_path, **changes):
    from resumecheck.embedding.arguments import parse_train_arguments
    from resumecheck.embedding.train import build_trainer

    return build_trainer(*parse_train_arguments(options(decoder, data, tmp_path / "out", **changes)))


def test_a_decoder_is_trained_by_lora_with_the_vector_of_its_last_token(decoder, data, tmp_path):
    trainer = trainer_of(decoder, data, tmp_path)
    trained = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert trainer.model.pooling == "last_token"
    assert not trainer_of(decoder, data, tmp_path, use_lora=False).model.adapted


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"modules_to_save": "norm", "gradient_accumulation_steps": 3}])
def test_its_resume_is_exact(workbench, decoder, data, tmp_path, changes):
    given = {"model_name_or_path": str(decoder), "train_data": str(data), "cache_path": str(tmp_path / "cache")}
    build = functools.partial(targets.build, directory=str(decoder.parent), lora_rank=2, **given, **changes)
    verdict = workbench.verify(build)
    assert verdict.equivalent, verdict
    assert len(verdict.resume_points) == 3


@pytest.mark.slow
def test_the_trained_model_is_an_adapter_or_merged(decoder, data, tmp_path):
    from transformers import AutoModel

    paths = {merged: tmp_path / str(merged) for merged in (False, True)}
    for merged, path in paths.items():
        given = options(decoder, data, path, max_steps=2, save_merged_lora_model=merged)
        assert main(given) == 0
    assert (paths[False] / "adapter_config.json").exists()
    assert not (paths[True] / "adapter_config.json").exists()
    models = [AutoModel.from_pretrained(path).eval() for path in paths.values()]
    tokens = {"input_ids": torch.arange(5, 11)[None], "attention_mask": torch.ones(1, 6, dtype=torch.long)}
    with torch.inference_mode():
        first, second = (model(**tokens).last_hidden_state for model in models)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_modules": "absent"}, "--target_modules absent: the model has none of them; its linear layers are"),
        ({"from_peft": "absent"}, "--from_peft absent: no adapter for this model"),
        ({"lora_rank": 0}, "--lora_rank 0: expected 1 or more"),
    ],
)
def test_options_of_lora_that_cannot_be_used_are_named(decoder, data, tmp_path, capsys, changes, message):
    given = tiny.train_options(decoder, data, tmp_path / "out", **({"lora_rank": 2} | changes))
    assert main(given) == 2
    assert message in capsys.readouterr().err
