"""Decoders with LoRA: only the low-rank weights are trained, the resume is exact, the result loads elsewhere."""

import functools
import json
import shutil

import pytest
import safetensors.torch
import torch

from resumecheck.embedding.arguments import parse_train_arguments
from resumecheck.embedding.embedder import load_embedder
from resumecheck.embedding.export import main as export
from resumecheck.embedding.model import load_encoder, load_tokenizer
from resumecheck.embedding.train import build_trainer, main
from resumecheck.errors import UsageError
from tests.embedding import targets, tiny


@pytest.fixture(scope="session")
def decoder(tmp_path_factory):
    return tiny.write_decoder(tmp_path_factory.mktemp("decoder"))


def options(decoder, data, output_dir, **changes):
    return tiny.train_options(decoder, data, output_dir, lora_rank=2, lora_dropout=0.1, **changes)


def trainer_of(decoder, data, tmp_path, **changes):
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


@pytest.fixture(scope="module", params=[(), ("<find>", "<text>")], ids=["no tokens", "two tokens"])
def tokens(request):
    """Tokens that a run adds."""
    return request.param


@pytest.fixture(scope="module")
def trained(decoder, tokens, tmp_path_factory):
    """Two runs that differ in what they write: the adapter with a checkpoint, and the merged model."""
    directory = tmp_path_factory.mktemp("trained")
    rows = [{**row, "query": f"<find> {row['query']}"} for row in tiny.rows(tiny.ROWS)]
    data = tiny.write_rows(directory / "data" / "train.jsonl", rows)
    shared = {"query_max_len": 16, "learning_rate": 0.1, "max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    for name, merged in (("adapter", False), ("merged", True)):
        given = options(decoder, data, directory / name, save_merged_lora_model=merged, **shared)
        assert main([*given, *(["--additional_special_tokens", *tokens] if tokens else [])]) == 0
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
    texts = [*tiny.texts(6, seed=5), " ".join(tiny.WORDS[:40]), "<find> ba <text> be"]
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


# --- tokens that are added -------------------------------------------------------------------------------------------


@pytest.fixture
def added(data, tmp_path):
    """The trainer of a run that adds two tokens and one that is there."""

    def build(model, **changes):
        given = options(model, data, tmp_path / "out", **changes)
        return build_trainer(*parse_train_arguments([*given, "--additional_special_tokens", "<find>", "ba", "<text>"]))

    return build


def test_tokens_are_added_with_the_mean_of_the_embeddings_that_are_there(added, decoder):
    trainer = added(decoder, use_lora=False)
    before, after = load_encoder(str(decoder)).embed_tokens.weight, trainer.model.encoder.embed_tokens.weight
    size = len(before)
    assert trainer.processing_class.convert_tokens_to_ids(["<find>", "<text>"]) == [size, size + 1]
    assert trainer.processing_class("<find>ba", add_special_tokens=False)["input_ids"] == [size, 5]
    assert torch.equal(after[:size], before)
    assert torch.equal(after[size:], before.mean(dim=0).expand(2, -1))
    assert trainer.model.encoder.config.vocab_size == size + 2


def test_a_model_with_rows_to_spare_gives_them_to_the_tokens(added, decoder, tmp_path):
    directory = shutil.copytree(decoder, tmp_path / "model")
    encoder = load_encoder(str(decoder))
    size = len(encoder.embed_tokens.weight)
    encoder.resize_token_embeddings(size + 7)
    encoder.save_pretrained(directory)
    rows = added(directory, use_lora=False).model.encoder.embed_tokens.weight
    assert len(rows) == size + 7
    assert torch.equal(rows[size : size + 2], rows[:size].mean(dim=0).expand(2, -1))


def test_lora_trains_the_embeddings_of_the_added_tokens_and_no_others(added, decoder):
    trainer = added(decoder)
    size = len(load_encoder(str(decoder)).embed_tokens.weight)
    embeddings = trainer.model.encoder.get_input_embeddings()
    trained = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    (tokens,) = [name for name in trained if "lora_" not in name]
    assert dict(trainer.model.named_parameters())[tokens].shape == (2, 16)
    loss = embeddings(torch.tensor([5, size, size + 1])).sum()
    loss.backward()
    assert dict(trainer.model.named_parameters())[tokens].grad.count_nonzero() == 2 * 16


@pytest.mark.slow
def test_trained_tokens_are_in_the_adapter_and_other_embeddings_are_not(trained, decoder, tokens):
    merged, base = load_encoder(str(trained / "merged")), load_encoder(str(decoder))
    before, after = base.embed_tokens.weight, merged.embed_tokens.weight
    assert torch.equal(after[: len(before)], before)
    assert len(after) == len(before) + len(tokens)
    # <find> is in each query; what no text has is not trained.
    moved = [not torch.equal(row, before.mean(dim=0)) for row in after[len(before) :]]
    assert moved == [True, False][: len(tokens)]
    shapes = [w.shape for w in safetensors.torch.load_file(trained / "adapter" / "adapter_model.safetensors").values()]
    assert before.shape not in shapes
    assert after.shape not in shapes
    tokenizer = load_tokenizer(str(trained / "adapter"))
    assert tokenizer.convert_tokens_to_ids(list(tokens)) == list(range(len(before), len(after)))


@pytest.mark.slow
def test_an_adapter_is_trained_on_with_the_tokens_of_its_run_alone(trained, decoder, tokens, data, tmp_path, capsys):
    given = options(decoder, data, tmp_path / "on", max_steps=1, from_peft=trained / "adapter")
    right, wrong = ["--additional_special_tokens", *tokens] if tokens else [], ["--additional_special_tokens", "<x>"]
    assert main([*given, *wrong]) == 2
    assert "its run had other special tokens beside those of the model" in capsys.readouterr().err
    assert main([*given, *right]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("lora", [True, False])
def test_a_resume_with_added_tokens_is_exact(workbench, decoder, tmp_path, lora):
    rows = [{**row, "query": f"<find> {row['query']}"} for row in tiny.rows(tiny.ROWS)]
    path = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    given = {"model_name_or_path": str(decoder), "train_data": str(path), "cache_path": str(tmp_path / "cache")}
    tokens = {"additional_special_tokens": "<find>", "use_lora": lora, "lora_rank": 2}
    verdict = workbench.verify(functools.partial(targets.build, directory=str(tmp_path), **given, **tokens), at=[3])
    assert verdict.equivalent, verdict


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
