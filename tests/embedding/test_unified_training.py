"""Training M3's heads: what the options mean, and what becomes of the heads in checkpoints and other commands."""

import json
import shutil

import pytest
import torch

from resumecheck.embedding.arguments import parse_train_arguments
from resumecheck.embedding.embedder import load_embedder
from resumecheck.embedding.export import export
from resumecheck.embedding.losses.objective import Objective
from resumecheck.embedding.losses.unified import UnifiedObjective
from resumecheck.embedding.train import build_trainer, main
from resumecheck.errors import UsageError
from tests.embedding import tiny

HEADS = ("colbert_linear.pt", "sparse_linear.pt")


@pytest.fixture
def trainer(encoder, data, tmp_path):
    def build(**changes):
        given = {"unified_finetuning": True, **changes}
        return build_trainer(*parse_train_arguments(tiny.train_options(encoder, data, tmp_path / "out", **given)))

    return build


# --- the loss of a batch ---------------------------------------------------------------------------------------------


def loss_at(trainer, step):
    trainer.model.eval()
    trainer.state.global_step = step
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader()))))


def test_the_sum_teaches_once_more_steps_than_the_start_step_are_done(trainer):
    plain, taught = trainer(), trainer(use_self_distill=True, self_distill_start_step=2)
    assert [loss_at(taught, step) == loss_at(plain, step) for step in range(4)] == [True, True, True, False]


def test_the_sum_teaches_from_the_beginning_where_no_start_step_is_given(trainer):
    assert loss_at(trainer(use_self_distill=True), 0) != loss_at(trainer(), 0)


def test_what_the_rows_say_reaches_the_loss(encoder, tmp_path):
    kinds = [{}, {"type": "only_1neg"}, {"type": "no_in_batch_neg"}]
    scores = {"pos_scores": [2, 1], "neg_scores": [1, 0.5, 0, -0.5, -1]}
    rows = [{**row, **kinds[number % 3], **scores} for number, row in enumerate(tiny.rows(9))]
    data = tiny.write_rows(tmp_path / "data" / "train.jsonl", rows)
    given = tiny.train_options(
        encoder, data, tmp_path / "out", unified_finetuning=True, knowledge_distillation=True, temperature=0.3
    )
    trainer = build_trainer(*parse_train_arguments(given))
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["own_group_only"].any()
    assert len(batch["group_sizes"].unique()) == 2
    trainer.model.eval()
    with torch.no_grad():
        queries, passages = (trainer.model.represent(batch[name]) for name in ("queries", "passages"))
        rows = {name: batch[name] for name in ("group_sizes", "own_group_only", "teacher_scores")}
        expected = UnifiedObjective(Objective(0.3))(queries, passages, **rows)
        assert torch.equal(trainer.compute_loss(trainer.model, batch), expected)
        without = UnifiedObjective(Objective(0.3))(queries, passages, group_sizes=rows["group_sizes"])
    assert abs(float(expected - without)) > 1e-3


def test_without_the_option_the_loss_is_that_of_the_dense_embedding(trainer):
    assert trainer(unified_finetuning=False).model.heads is None


# --- what is trained -------------------------------------------------------------------------------------------------


def test_a_fixed_encoder_stays_bit_for_bit_while_the_heads_are_trained(trainer, encoder):
    built = trainer(fix_encoder=True, max_steps=2)
    before = {name: tensor.clone() for name, tensor in built.model.state_dict().items()}
    built.train()
    changed = [name for name, tensor in built.model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert sorted(changed) == sorted(name for name in before if name.startswith("heads."))


def test_everything_is_trained_without_that_option(trainer):
    fixed = [name for name, parameter in trainer().model.named_parameters() if not parameter.requires_grad]
    assert all("pooler" in name for name in fixed)


def test_fixed_positions_stay_fixed_beside_heads(trainer):
    fixed = [name for name, p in trainer(fix_position_embedding=True).model.named_parameters() if not p.requires_grad]
    assert "encoder.embeddings.position_embeddings.weight" in fixed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unified_finetuning": False, "use_self_distill": True}, "--use_self_distill has no effect without --unified"),
        (
            {"unified_finetuning": False, "fix_encoder": True},
            "--fix_encoder has no effect without --unified_finetuning",
        ),
        ({"unified_finetuning": False, "colbert_dim": 8}, "--colbert_dim has no effect without --unified_finetuning"),
        ({"self_distill_start_step": 5}, "--self_distill_start_step has no effect without --use_self_distill True"),
        ({"use_mrl": True, "mrl_dims": 8}, "--use_mrl cannot be used with --unified_finetuning"),
        ({"use_lora": True, "target_modules": "query"}, "--unified_finetuning: heads are not trained beside LoRA"),
    ],
)
def test_what_cannot_work_is_refused_by_name(trainer, changes, message):
    with pytest.raises(UsageError) as error:
        trainer(**changes)
    assert message in str(error.value)
    assert str(error.value).count("\n") <= 2


# --- checkpoints and other commands ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(encoder, data, tmp_path_factory):
    """A run of 3 steps with a checkpoint after the second."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("trained") / "out"
    given = {"unified_finetuning": True, "max_steps": 3, "save_strategy": "steps", "save_steps": 2}
    assert main(tiny.train_options(encoder, data, directory, **given)) == 0
    return directory


@pytest.fixture
def resume(trained, encoder, data, tmp_path, capfd):
    """Resume a copy of the run; returns exit status and what was said."""

    def go_on(spoil=None, **changes):
        shutil.copytree(trained / "checkpoint-2", tmp_path / "run" / "checkpoint-2")
        if spoil is not None:
            spoil(tmp_path / "run" / "checkpoint-2")
        given = {"unified_finetuning": True, "max_steps": 3, "resume_from_checkpoint": "latest", **changes}
        status = main(tiny.train_options(encoder, data, tmp_path / "run", **given))
        return status, capfd.readouterr().err

    return go_on


def test_the_heads_are_in_the_manifest_of_a_checkpoint(trained):
    manifest = json.loads((trained / "checkpoint-2" / "manifest.json").read_text())
    assert set(HEADS) <= manifest["files"].keys()
    assert manifest["arguments"]["unified_finetuning"] is True


@pytest.mark.parametrize("name", HEADS)
def test_a_checkpoint_without_a_head_is_refused_by_name(resume, name):
    status, text = resume(lambda directory: (directory / name).unlink())
    assert status == 2
    assert f"{name} is missing" in text


@pytest.mark.parametrize("name", HEADS)
def test_a_checkpoint_with_another_head_is_refused_by_name(resume, name):
    def spoil(directory):
        content = bytearray((directory / name).read_bytes())
        content[len(content) // 2] ^= 1
        (directory / name).write_bytes(content)

    status, text = resume(spoil)
    assert status == 2
    assert f"{name} is not the file that was written" in text


def test_a_run_with_heads_is_not_resumed_without_them_or_with_others(resume, tmp_path):
    status, text = resume(unified_finetuning=False)
    assert status == 2
    assert "--unified_finetuning was true, now false" in text
    shutil.rmtree(tmp_path / "run")
    status, text = resume(colbert_dim=8)
    assert status == 2
    assert "--colbert_dim was 16, now 8" in text


def test_a_run_without_heads_is_not_resumed_with_them(encoder, data, tmp_path, capfd):
    given = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2}
    assert main(tiny.train_options(encoder, data, tmp_path / "out", **given)) == 0
    given = {**given, "resume_from_checkpoint": "latest", "unified_finetuning": True}
    assert main(tiny.train_options(encoder, data, tmp_path / "out", **given)) == 2
    assert "--unified_finetuning was false, now true" in capfd.readouterr().err


def test_a_new_run_starts_from_the_heads_of_a_model_or_checkpoint(trained, trainer):
    for place, option in (("", "model_name_or_path"), ("checkpoint-2", "init_from_checkpoint")):
        built = trainer(**{"model_name_or_path": None, option: trained / place})
        for layer in ("colbert_linear", "sparse_linear"):
            expected = torch.load(trained / place / f"{layer}.pt", weights_only=True)
            found = getattr(built.model.heads, layer).state_dict()
            assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_commands_that_use_the_dense_embedding_alone_work_as_without_heads(trained, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(trained, bare, ignore=shutil.ignore_patterns("*_linear.pt", "checkpoint-*"))
    texts = tiny.texts(4, seed=1)
    found = [load_embedder(str(source)).queries(texts, batch_size=2) for source in (trained, bare)]
    assert torch.equal(*found)
    export(str(trained), tmp_path / "exported")
    assert torch.equal(load_embedder(str(tmp_path / "exported")).queries(texts, batch_size=2), found[0])
