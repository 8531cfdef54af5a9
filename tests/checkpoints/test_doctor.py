"""Each framework's own checkpoint is recognised and whole; whatever is taken from it or put wrong is named."""

import dataclasses
import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import torch

import resumecheck
from resumecheck.checkpoints.diagnosis import Checkpoint, Diagnosis, File, Loss, Problem
from resumecheck.checkpoints.layouts import LAYOUTS
from resumecheck.cli import main
from resumecheck.comparison import Comparison
from resumecheck.errors import UsageError
from resumecheck.state.components import COMPONENTS

pytestmark = pytest.mark.slow  # each framework trains and writes its own checkpoint

SCHEMA = json.loads((files("resumecheck") / "schema" / "doctor-1.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

#: framework -> (fixture, where in it a checkpoint is, its step, a part of the call that resumes)
REAL = {
    "transformers": ("transformers", "checkpoint-4", 4, "trainer.train(resume_from_checkpoint="),
    "sentence-transformers": ("sentence_transformers", "checkpoint-1", 1, "trainer.train(resume_from_checkpoint="),
    "accelerate": ("accelerate", "", 3, "accelerator.load_state("),
    "torch DCP": ("dcp", "", None, "checkpoint_id="),
    "resumecheck": ("resumecheck", "checkpoint-1", 1, "--resume_from_checkpoint"),
    "Lightning": ("lightning", "epoch=0-step=3.ckpt", 3, "ckpt_path="),
    "DeepSpeed": ("deepspeed", "global_step3", 3, "tag='global_step3'"),
}


def components(losses, cause=None):
    return {loss.component for loss in losses if cause is None or loss.cause == cause}


@pytest.mark.parametrize("framework", REAL)
def test_a_checkpoint_of_the_framework_is_recognised_and_whole(framework, copy_of):
    fixture, where, step, call = REAL[framework]
    path = copy_of(fixture) / where
    diagnosis = resumecheck.doctor(path)
    assert (diagnosis.kind, diagnosis.framework) == ("checkpoint", framework)
    (checkpoint,) = diagnosis.checkpoints
    assert checkpoint.problems == ()
    assert (checkpoint.step, diagnosis.newest_whole, diagnosis.exit_status) == (step, str(path), 0)
    assert call in diagnosis.resume
    assert str(path.parent if framework == "DeepSpeed" else path) in diagnosis.resume
    VALIDATOR.validate(json.loads(json.dumps(diagnosis.to_json())))


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["$defs"]["component"]["enum"]) == set(COMPONENTS)


def test_tables_speak_of_components_only():
    for layout in LAYOUTS:
        named = [*(piece.holds for piece in layout.pieces), *(need.loses for need in layout.needs)]
        assert {name for names in named for name in names} <= set(COMPONENTS), layout.framework


# --- what is missing ------------------------------------------------------------------------------------------------

MISSING = [
    ("transformers", "checkpoint-4", "optimizer.pt", {"optimizer-moments", "optimizer-step", "lr-scheduler"}, True),
    ("transformers", "checkpoint-4", "scheduler.pt", {"lr-scheduler", "optimizer-moments"}, True),
    ("transformers", "checkpoint-4", "rng_state.pth", {"rng-python", "rng-numpy", "rng-torch"}, True),
    ("transformers", "checkpoint-4", "trainer_state.json", {"counters", "data-position"}, False),
    ("transformers", "checkpoint-4", "model.safetensors", {"weights", "buffers"}, False),
    ("sentence_transformers", "checkpoint-1", "scheduler.pt", {"lr-scheduler", "optimizer-moments"}, True),
    ("accelerate", "", "optimizer.bin", {"optimizer-moments"}, False),
    ("accelerate", "", "random_states_0.pkl", {"rng-python", "rng-torch"}, True),
    ("resumecheck", "checkpoint-1", "scheduler.pt", {"lr-scheduler"}, False),
    ("resumecheck", "checkpoint-1", "manifest.json", {"checkpoint-files"}, False),
    ("dcp", "", ".metadata", {"checkpoint-files"}, False),
    ("deepspeed", "global_step3", "mp_rank_00_model_states.pt", {"weights", "counters"}, False),
]


@pytest.mark.parametrize(("framework", "where", "name", "lost", "silent"), MISSING)
def test_a_missing_file_is_named_with_what_is_lost_without_it(framework, where, name, lost, silent, copy_of):
    path = copy_of(framework) / where
    (path / name).unlink()
    diagnosis = resumecheck.doctor(path)
    (checkpoint,) = diagnosis.checkpoints
    assert diagnosis.exit_status == 1
    assert any(name in problem.message and problem.kind == "missing" for problem in checkpoint.problems)
    assert lost <= components(checkpoint.losses, "missing")
    assert all(loss.silent is silent for loss in checkpoint.losses if loss.component in lost)


def test_what_the_doctor_says_of_a_missing_scheduler_is_what_transformers_does(copy_of):
    """Without scheduler.pt the optimizer is not loaded either, and nothing is raised."""
    from tests.examples.masked_words import build

    path = copy_of("transformers") / "checkpoint-4"
    (path / "scheduler.pt").unlink()
    trainer = build(str(path.parent))
    trainer.args.max_steps, trainer.args.disable_tqdm, trainer.args.save_strategy = 5, True, "no"
    trainer.train(resume_from_checkpoint=str(path))
    assert {float(state["step"]) for state in trainer.optimizer.state.values()} == {1.0}


def test_a_missing_key_of_lightning_is_named(copy_of):
    path = copy_of("lightning") / "epoch=0-step=3.ckpt"
    state = torch.load(path, weights_only=True)
    del state["optimizer_states"]
    torch.save(state, path)
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    assert [problem.file for problem in checkpoint.problems] == ["optimizer_states"]
    assert "optimizer-moments" in components(checkpoint.losses, "missing")


def test_missing_ranks_are_named(copy_of):
    path = copy_of("transformers") / "checkpoint-4"
    (path / "rng_state.pth").rename(path / "rng_state_2.pth")
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    assert "rank 0" in checkpoint.problems[0].message
    tag = copy_of("deepspeed") / "global_step3"
    (tag / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    (checkpoint,) = resumecheck.doctor(tag).checkpoints
    assert "1 of 2 shards of the optimizer" in checkpoint.problems[0].message


def test_deepspeed_without_latest_would_load_nothing(copy_of):
    output_dir = copy_of("deepspeed")
    (output_dir / "latest").unlink()
    diagnosis = resumecheck.doctor(output_dir)
    assert "loads nothing" in diagnosis.checkpoints[0].problems[0].message


def test_shards_that_an_index_names_must_be_there_and_inside(copy_of):
    path = copy_of("transformers") / "checkpoint-4"
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "../../secret.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    assert {problem.kind for problem in checkpoint.problems} == {"missing", "code"}
    assert any("outside the checkpoint" in problem.message for problem in checkpoint.problems)


def test_shards_of_fsdp_inside_a_checkpoint_are_looked_at(copy_of):
    """With FSDP the Trainer writes `optimizer_0/` and `pytorch_model_fsdp_0/`, each a torch DCP."""
    path, sharded = copy_of("transformers") / "checkpoint-4", copy_of("dcp")
    (path / "optimizer.pt").unlink()
    sharded.rename(path / "optimizer_0")
    assert resumecheck.doctor(path).whole
    shard = path / "optimizer_0" / "__0_0.distcp"
    shard.write_bytes(shard.read_bytes()[:-100])
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    assert [(problem.kind, problem.file) for problem in checkpoint.problems] == [
        ("damaged", "optimizer_0/__0_0.distcp")
    ]
    (path / "optimizer_0" / ".metadata").unlink()
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    assert [problem.file for problem in checkpoint.problems] == ["optimizer_0/.metadata"]


def test_parameters_that_are_trained_but_not_saved_are_a_loss(copy_of):
    path = copy_of("transformers") / "checkpoint-4"
    state = torch.load(path / "optimizer.pt", weights_only=True)
    state["param_groups"][0]["params"] += [1000 + number for number in range(200)]
    torch.save(state, path / "optimizer.pt")
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    assert not checkpoint.whole
    assert "loss-parameters" in components(checkpoint.losses)


# --- what is never saved --------------------------------------------------------------------------------------------

NEVER = {
    "sentence_transformers": {"loss-parameters"},
    "accelerate": {"data-order", "data-position", "counters"},
    "lightning": {"rng-python", "rng-numpy", "rng-torch", "rng-cuda", "data-order"},
    "deepspeed": {"rng-python", "rng-torch", "data-position"},
    "dcp": {"lr-scheduler", "rng-torch"},
}


@pytest.mark.parametrize("framework", NEVER)
def test_what_a_framework_never_saves_is_a_silent_loss_of_a_whole_checkpoint(framework, copy_of):
    diagnosis = resumecheck.doctor(copy_of(framework))
    checkpoint = diagnosis.checkpoints[-1]
    assert checkpoint.whole
    assert NEVER[framework] <= {loss.component for loss in checkpoint.losses if loss.silent}


def test_the_trainer_of_this_package_loses_nothing(copy_of):
    assert all(checkpoint.losses == () for checkpoint in resumecheck.doctor(copy_of("resumecheck")).checkpoints)


# --- what contradicts ------------------------------------------------------------------------------------------------


def test_step_counts_of_another_checkpoint_disagree(copy_of):
    path = copy_of("transformers")
    for name in ("optimizer.pt", "trainer_state.json"):
        diagnosis = resumecheck.doctor(path / "checkpoint-4")
        assert diagnosis.checkpoints[0].steps == {
            "name": 4,
            "trainer_state.json": 4,
            "optimizer.pt": 4,
            "scheduler.pt": 4,
        }
        good = (path / "checkpoint-4" / name).read_bytes()
        (path / "checkpoint-4" / name).write_bytes((path / "checkpoint-2" / name).read_bytes())
        (checkpoint,) = resumecheck.doctor(path / "checkpoint-4").checkpoints
        assert {problem.kind for problem in checkpoint.problems} == {"disagreement"}
        assert "step 2" in checkpoint.problems[0].message
        (path / "checkpoint-4" / name).write_bytes(good)


def test_a_file_that_its_manifest_does_not_vouch_for_is_refused(copy_of):
    path = copy_of("resumecheck") / "checkpoint-1"
    state = torch.load(path / "optimizer.pt", weights_only=True)
    state["param_groups"][0]["lr"] = 0.5
    torch.save(state, path / "optimizer.pt")
    (checkpoint,) = resumecheck.doctor(path).checkpoints
    assert "the trainer refuses it: optimizer.pt" in checkpoint.problems[0].message


# --- output directories ----------------------------------------------------------------------------------------------


def test_the_newest_whole_checkpoint_of_an_output_directory_is_the_one_to_resume_from(copy_of):
    path = copy_of("transformers")
    torn = path / "checkpoint-6" / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:-2000])
    (path / "tmp-checkpoint-8").mkdir()
    diagnosis = resumecheck.doctor(path)
    assert [checkpoint.step for checkpoint in diagnosis.checkpoints] == [2, 4, 6]
    assert diagnosis.newest_whole == str(path / "checkpoint-4")
    assert str(path / "checkpoint-4") in diagnosis.resume
    assert "never as the model's name or path" in diagnosis.resume
    assert any("takes checkpoint-6, which is not whole" in remark for remark in diagnosis.remarks)
    assert any("tmp-checkpoint-8" in remark for remark in diagnosis.remarks)
    assert diagnosis.exit_status == 1


def test_of_a_checkpoint_that_is_not_whole_the_one_to_take_instead_is_named(copy_of):
    path = copy_of("transformers")
    (path / "checkpoint-6" / "optimizer.pt").unlink()
    diagnosis = resumecheck.doctor(path / "checkpoint-6")
    assert f"beside it: trainer.train(resume_from_checkpoint={str(path / 'checkpoint-4')!r})" in diagnosis.resume
    assert diagnosis.newest_whole is None


def test_a_checkpoint_that_was_killed_before_its_first_file_is_no_checkpoint_to_resume_from(copy_of):
    path = copy_of("sentence_transformers")
    (path / "checkpoint-9").mkdir()
    diagnosis = resumecheck.doctor(path)
    last = diagnosis.checkpoints[-1]
    assert (last.framework, last.step, last.whole) == ("sentence-transformers", 9, False)
    assert diagnosis.newest_whole == str(path / "checkpoint-2")


def test_a_finished_model_is_no_checkpoint(copy_of):
    path = copy_of("transformers") / "checkpoint-4"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "training_args.bin"):
        (path / name).unlink()
    model = path.rename(path.parent.parent / "model")
    diagnosis = resumecheck.doctor(model)
    assert (diagnosis.kind, diagnosis.exit_status) == ("model", 1)
    assert "step 0" in diagnosis.resume


def test_automatic_naming_of_accelerate_is_found(copy_of, tmp_path):
    state = copy_of("accelerate")
    (tmp_path / "project" / "checkpoints").mkdir(parents=True)
    state.rename(tmp_path / "project" / "checkpoints" / "checkpoint_0")
    diagnosis = resumecheck.doctor(tmp_path / "project")
    assert (diagnosis.kind, diagnosis.framework) == ("output directory", "accelerate")
    assert diagnosis.whole


def test_flagembedding_is_told_by_the_arguments_of_its_trainer(copy_of):
    """Layout and arguments as FlagEmbedding 1.4.2 writes them; `weights` do not come back (its issue 1034)."""
    from tests.checkpoints.hostile import named_class

    path = copy_of("transformers") / "checkpoint-4"
    arguments = named_class("FlagEmbedding.abc.finetune.embedder.AbsArguments", "AbsEmbedderTrainingArguments")()
    arguments.same_dataset_within_batch = True
    torch.save(arguments, path / "training_args.bin")
    diagnosis = resumecheck.doctor(path)
    assert diagnosis.framework == "FlagEmbedding"
    assert diagnosis.whole
    assert {"weights", "data-position"} <= components(diagnosis.checkpoints[0].losses, "not restored")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_tells_and_writes_what_it_found(copy_of, tmp_path, capsys):
    path = copy_of("transformers")
    assert main(["doctor", str(path), "--json", str(tmp_path / "doctor.json")]) == 0
    told = capsys.readouterr().out
    assert "3 of 3 checkpoints whole" in told
    assert f"trainer.train(resume_from_checkpoint='{path / 'checkpoint-6'}')" in told
    VALIDATOR.validate(json.loads((tmp_path / "doctor.json").read_text()))
    (path / "checkpoint-4" / "rng_state.pth").unlink()
    assert main(["doctor", str(path / "checkpoint-4")]) == 1
    assert "rng-python" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["nowhere", "notes.txt", "", "a\0b"])
def test_what_is_no_directory_is_wrong_usage(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(UsageError):
        resumecheck.doctor(path or "missing")
    assert main(["doctor", path or "missing"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) <= 3


def test_a_directory_without_checkpoints_is_unknown(tmp_path):
    diagnosis = resumecheck.doctor(tmp_path)
    assert (diagnosis.kind, diagnosis.checkpoints, diagnosis.exit_status) == ("unknown", (), 1)


@pytest.mark.parametrize("fact", [Diagnosis, Checkpoint, File, Problem, Loss, Comparison])
def test_every_field_is_in_the_schema_and_on_the_page(fact):
    fields = {field.name for field in dataclasses.fields(fact)}
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert {field for field in fields if f"`{field}`" not in page} == set()
    if fact is Comparison:
        schema = json.loads((files("resumecheck") / "schema" / "diff-1.json").read_text(encoding="utf-8"))
        assert set(schema["required"]) == fields | {"schema"}
    elif fact is Diagnosis:
        assert set(SCHEMA["required"]) == fields | {"schema", "whole"}
    else:
        assert set(SCHEMA["$defs"][fact.__name__.lower()]["required"]) == fields


def test_the_page_shows_what_is_printed(copy_of, monkeypatch, capsys):
    path = copy_of("transformers")
    monkeypatch.chdir(path.parent)
    torn = path / "checkpoint-6" / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:-4000])
    (path / "checkpoint-4" / "scheduler.pt").unlink()
    assert main(["doctor", path.name]) == 1
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    shown = {" ".join(line.split()) for line in page.splitlines()}
    printed = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    kept = [line for line in printed if line.startswith(("- data-content", "are fetched", "both files", "note resume"))]
    assert len(kept) == 4
    for line in kept:
        assert line.replace("checkpoint-6", "checkpoint-12") in shown
