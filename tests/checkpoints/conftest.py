"""Checkpoints that the frameworks themselves wrote, once for all tests; each test gets a copy that it may damage."""

import shutil
from pathlib import Path

import pytest
import torch


def toy():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    return model, optimizer, schedule


def train(model, optimizer, schedule, steps):
    for _ in range(steps):
        model(torch.randn(2, 4)).pow(2).sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


@pytest.fixture(scope="session")
def written_by_transformers(tmp_path_factory):
    from tests.examples.masked_words import build

    output_dir = tmp_path_factory.mktemp("transformers") / "out"
    trainer = build(str(output_dir))
    trainer.args.save_strategy, trainer.args.save_steps, trainer.args.max_steps = "steps", 2, 6
    trainer.args.logging_strategy, trainer.args.disable_tqdm = "no", True
    trainer.train()
    return output_dir


@pytest.fixture(scope="session")
def written_by_sentence_transformers(tmp_path_factory):
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
        models,
    )

    from tests.embedding import tiny

    directory = tmp_path_factory.mktemp("sentence-transformers")
    words = models.Transformer(str(tiny.write_encoder(directory / "encoder")), max_seq_length=16)
    model = SentenceTransformer(modules=[words, models.Pooling(16)], device="cpu")
    pairs = Dataset.from_dict({"anchor": tiny.texts(16, seed=1), "positive": tiny.texts(16, seed=2)})
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(directory / "out"),
        max_steps=2,
        save_steps=1,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    loss = losses.MultipleNegativesRankingLoss(model)
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=pairs, loss=loss).train()
    return directory / "out"


@pytest.fixture(scope="session")
def written_by_accelerate(tmp_path_factory):
    from accelerate import Accelerator

    directory = tmp_path_factory.mktemp("accelerate") / "state"
    accelerator = Accelerator(cpu=True)
    loader = torch.utils.data.DataLoader(torch.randn(8, 4), shuffle=True)
    model, optimizer, schedule, loader = accelerator.prepare(*toy(), loader)
    train(model, optimizer, schedule, 3)
    accelerator.save_state(str(directory))
    return directory


@pytest.fixture(scope="session")
def written_by_dcp(tmp_path_factory):
    import torch.distributed.checkpoint as dcp

    directory = tmp_path_factory.mktemp("dcp") / "step-3"
    model, optimizer, schedule = toy()
    train(model, optimizer, schedule, 3)
    dcp.save({"model": model.state_dict(), "optim": optimizer.state_dict(), "step": 3}, checkpoint_id=str(directory))
    return directory


@pytest.fixture(scope="session")
def written_by_resumecheck(tmp_path_factory):
    from resumecheck.embedding.train import main
    from tests.embedding import tiny

    directory = tmp_path_factory.mktemp("resumecheck")
    encoder = tiny.write_encoder(directory / "encoder")
    data = tiny.write_rows(directory / "train.jsonl", tiny.rows(tiny.ROWS))
    saving = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    assert main(tiny.train_options(encoder, data, directory / "out", **saving)) == 0
    return directory / "out"


@pytest.fixture(scope="session")
def written_by_lightning(tmp_path_factory):
    """The keys of a checkpoint that pytorch-lightning 2.6.6 wrote (Trainer.save_checkpoint, one optimizer)."""
    model, optimizer, schedule = toy()
    train(model, optimizer, schedule, 3)
    progress = {"total": {"ready": 3, "completed": 3}, "current": {"ready": 3, "completed": 3}}
    loop = {
        "state_dict": {},
        "epoch_loop.state_dict": {"_batches_that_stepped": 3},
        "epoch_loop.batch_progress": progress,
    }
    path = tmp_path_factory.mktemp("lightning") / "epoch=0-step=3.ckpt"
    torch.save(
        {
            "epoch": 0,
            "global_step": 3,
            "pytorch-lightning_version": "2.6.6",
            "state_dict": model.state_dict(),
            "loops": {"fit_loop": loop},
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": ""}},
            "optimizer_states": [optimizer.state_dict()],
            "lr_schedulers": [{"last_epoch": 3, "_last_lr": [0.001]}],
        },
        path,
    )
    return path.parent


@pytest.fixture(scope="session")
def written_by_deepspeed(tmp_path_factory):
    """As DeepSpeed's engine.save_checkpoint lays it out for ZeRO stage 2 on two ranks (runtime/engine.py)."""
    directory = tmp_path_factory.mktemp("deepspeed") / "out"
    model, optimizer, schedule = toy()
    train(model, optimizer, schedule, 3)
    tag = directory / "global_step3"
    tag.mkdir(parents=True)
    state = {
        "module": model.state_dict(),
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [],
        "lr_scheduler": {"last_batch_iteration": 3},
        "data_sampler": None,
        "skipped_steps": 0,
        "global_steps": 3,
        "global_samples": 12,
        "dp_world_size": 2,
        "mp_world_size": 1,
        "ds_version": "0.17.0",
    }
    torch.save(state, tag / "mp_rank_00_model_states.pt")
    for rank in range(2):
        shard = {"optimizer_state_dict": {"base_optimizer_state": optimizer.state_dict(), "zero_stage": 2}}
        torch.save(shard, tag / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    (directory / "latest").write_text("global_step3")
    (directory / "zero_to_fp32.py").write_text("raise SystemExit('not to be run')\n")
    return directory


@pytest.fixture
def copy_of(request, tmp_path):
    """A copy of what a framework wrote."""

    def copy(framework):
        written: Path = request.getfixturevalue(f"written_by_{framework}")
        return shutil.copytree(written, tmp_path / framework / written.name, symlinks=True)

    return copy
