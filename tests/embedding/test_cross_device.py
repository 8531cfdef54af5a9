"""Two processes with cross-device negatives take the step of one process with the joint batch."""

import json
import os
import subprocess
import sys

import pytest
import torch

from resumecheck.embedding.losses.objective import Objective
from tests.embedding import tiny
from tests.embedding.test_exact_resume import REPOSITORY, TWO_PROCESSES

pytestmark = pytest.mark.slow

#: Rows whose groups differ in size, some without in-batch negatives.
KINDS = [{}, {"type": "only_1neg"}, {"train_group_size": 5}, {"type": "no_in_batch_neg"}]
SCORES = {"pos_scores": [2, 1], "neg_scores": [1, 0.5, 0, -0.5, -1]}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("joint")
    tiny.write_encoder(directory / "encoder")
    rows = [{**row, **KINDS[number % 4], **SCORES} for number, row in enumerate(tiny.rows(tiny.ROWS))]
    tiny.write_rows(directory / "data" / "train.jsonl", rows)
    return directory


def step(directory, output, launcher=(), **options):
    """Loss and gradients of the first step."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    given = json.dumps({"ddp_backend": "gloo" if launcher else None, "negatives_cross_device": True, **options})
    command = [sys.executable, "-m", *launcher, "tests.embedding.one_step", str(directory), str(output), given]
    done = subprocess.run(
        command,
        check=False,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout
    return torch.load(output)


def largest_difference(first, second):
    assert first["gradients"].keys() == second["gradients"].keys()
    return max(
        abs(float(first["loss"] - second["loss"])),
        *(float((first["gradients"][name] - second["gradients"][name]).abs().max()) for name in first["gradients"]),
    )


CHOICES = [
    {},
    {"sub_batch_size": 3, "use_mrl": True, "mrl_dims": 8},
    {"knowledge_distillation": True},
    {"knowledge_distillation": True, "kd_loss_type": "m3_kd_loss"},
]


@pytest.mark.parametrize("options", CHOICES, ids=lambda options: "-".join(options) or "contrastive")
def test_two_processes_equal_one_with_the_joint_batch(directory, tmp_path, options):
    apart = step(directory, tmp_path / "two.pt", TWO_PROCESSES, per_device_train_batch_size=4, **options)
    together = step(directory, tmp_path / "one.pt", per_device_train_batch_size=8, **options)
    assert (apart["world_size"], together["world_size"]) == (2, 1)
    assert largest_difference(apart, together) <= 1e-10


def test_the_comparison_notices_negatives_that_stay_in_their_process(directory, tmp_path):
    apart = step(
        directory, tmp_path / "two.pt", TWO_PROCESSES, per_device_train_batch_size=4, negatives_cross_device=False
    )
    together = step(directory, tmp_path / "one.pt", per_device_train_batch_size=8)
    assert largest_difference(apart, together) > 1e-3


# --- processes with different numbers of queries and passages ---------------------------------------------------------

UNEVEN = [([2, 3], 0), ([1, 4, 2], 5)]  # for each process: sizes of the groups, first row of its passages


def vectors():
    draw = torch.Generator().manual_seed(3)
    return [torch.randn(count, 6, generator=draw, dtype=torch.float64, requires_grad=True) for count in (5, 12)]


def uneven_process(rank, path):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    queries, passages = vectors()
    sizes, first = UNEVEN[rank]
    start = 2 * rank
    loss = Objective(temperature=0.5, cross_device=True)(
        queries[start : start + len(sizes)], passages[first : first + sum(sizes)], group_sizes=torch.tensor(sizes)
    )
    loss.backward()
    torch.save([loss.detach(), queries.grad, passages.grad], path / f"{rank}.pt")
    dist.destroy_process_group()


def test_processes_with_different_numbers_of_rows_equal_one(tmp_path):
    torch.multiprocessing.spawn(uneven_process, (tmp_path,), nprocs=2)
    apart = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    queries, passages = vectors()
    loss = Objective(temperature=0.5)(queries, passages, group_sizes=torch.tensor(UNEVEN[0][0] + UNEVEN[1][0]))
    loss.backward()
    for expected, *found in zip((loss.detach(), queries.grad, passages.grad), *apart, strict=True):
        assert torch.allclose(sum(found) / 2, expected, rtol=0, atol=1e-10)
