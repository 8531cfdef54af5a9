"""Decoders with LoRA: only the low-rank weights are trained, the resume is exact, the result loads elsewhere."""

import functools
import json
import shutil

import pytest
import safetensors.torch
import torch

from resumecheck.embedding.embedder import load_embedder
from resumecheck.embedding.export import main as export
from resumecheck.embedding.model import load_encoder
from resumecheck.embedding.train import main
from resumecheck.errors import UsageError
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


@pytest.fixture(scope="module")
def trained(decoder, tmp_path_factory):
    """Two runs that differ in what they write: the adapter with a checkpoint, and the merged model."""
    directory = tmp_path_factory.mktemp("trained")
    data = tiny.write_rows(directory / "data" / "train.jsonl", tiny.rows(tiny.ROWS))
    shared = {"query_max_len": 16, "learning_rate": 0.1, "max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    for name, merged in (("adapter", False), ("merged", True)):
        assert main(options(decoder, data, directory / name, save_merged_lora_model=merged, **shared)) == 0
    return directory


@pytest.mark.slow
def test_adapter_checkpoint_and_merged_model_are_one_model_wherever_they_are_used(trained, decoder):
    merged = load_encoder(str(trained / "merged")).state_dict()
    for name in ("adapter", "adapter/checkpoint-2", "merged/checkpoint-2"):
        found = load_encoder(str(trained / name)).state_dict()
        assert found.keys() == merged.keys()
        assert all(torch.equal(found[key], merged[key]) for key in merged), name
    base = load_encoder(str(decoder)).state_dict()
    assert not torch.equal(base["layers.0.self_attn.q_proj.weight"], merged["layers.0.self_attn.q_proj.weight"])
    assert not (trained / "merged" / "lora").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adapter", "adapter/checkpoint-2", "merged"])
def test_what_is_exported_gives_the_same_vectors_to_the_last_bit(trained, tmp_path, name):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    given = ["--model_name_or_path", str(trained / name), "--output_dir", str(tmp_path / "exported")]
    assert export(given) == 0
    exported = sentence_transformers.SentenceTransformer(str(tmp_path / "exported"), device="cpu")
    texts = [*tiny.texts(6, seed=5), " ".join(tiny.WORDS[:40])]
    ours = load_embedder(str(trained / "merged")).passages(texts, batch_size=1)
    assert torch.equal(exported.encode(texts, convert_to_tensor=True, batch_size=1), ours)
    assert not list((tmp_path / "exported").glob("adapter*"))


@pytest.mark.slow
def test_an_adapter_on_top_of_an_adapter_belongs_to_both(trained, data, tmp_path):
    given = options(trained / "adapter", data, tmp_path / "again", learning_rate=0.1, max_steps=2)
    assert main(given) == 0
    both, first = (load_encoder(str(path)).state_dict() for path in (tmp_path / "again", trained / "adapter"))
    assert main([*given, "--overwrite_output_dir", "--save_merged_lora_model"]) == 0
    merged = load_encoder(str(tmp_path / "again")).state_dict()
    assert all(torch.equal(both[name], merged[name]) for name in merged)
    assert not torch.equal(both["layers.0.mlp.up_proj.weight"], first["layers.0.mlp.up_proj.weight"])


@pytest.mark.slow
def test_a_new_run_starts_from_the_weights_of_a_checkpoint(trained, data, tmp_path):
    start = {"model_name_or_path": None, "init_from_checkpoint": trained / "adapter" / "checkpoint-2"}
    trainer = trainer_of(None, data, tmp_path, **start)
    trainer.model.eval()
    merged = load_embedder(str(trained / "merged"))
    tokens = {"input_ids": torch.arange(5, 11)[None], "attention_mask": torch.ones(1, 6, dtype=torch.long)}
    with torch.inference_mode():
        assert torch.equal(trainer.model.embed(tokens), merged.model.eval().embed(tokens))  # new LoRA adds zero


def test_weights_that_a_directory_lacks_are_not_drawn_at_random(decoder, tmp_path):
    directory = shutil.copytree(decoder, tmp_path / "model")
    weights = safetensors.torch.load_file(directory / "model.safetensors")
    del weights["layers.1.mlp.up_proj.weight"]
    safetensors.torch.save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"the directory has no weights for layers\.1\.mlp\.up_proj\.weight"):
        load_encoder(str(directory))


@pytest.mark.slow
def test_an_adapter_without_its_model_is_named(trained, tmp_path, capsys):
    directory = shutil.copytree(trained / "adapter", tmp_path / "adapter")
    settings = json.loads((directory / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(tmp_path / "trained")
    (tmp_path / "trained").mkdir()
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    assert export(["--model_name_or_path", str(directory), "--output_dir", str(tmp_path / "exported")]) == 2
    assert f"--model_name_or_path {tmp_path / 'trained'}: no model could be loaded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_modules": "absent"}, "--target_modules absent: the model has none of them; its linear layers are"),
        ({"from_peft": "absent/from/here"}, "--from_peft absent/from/here: no adapter for this model"),
        ({"lora_rank": 0}, "--lora_rank 0: expected 1 or more"),
    ],
)
def test_options_of_lora_that_cannot_be_used_are_named(decoder, data, tmp_path, capsys, changes, message):
    given = tiny.train_options(decoder, data, tmp_path / "out", **({"lora_rank": 2} | changes))
    assert main(given) == 2
    assert message in capsys.readouterr().err
