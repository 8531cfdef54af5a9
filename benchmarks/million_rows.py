"""A corpus of 1,000,000 rows: memory when training starts, and how long it takes to the first step of a resumed run.

    python benchmarks/million_rows.py [--rows 1000000]

Makes the rows, reads them once (Arrow form, memory-mapped), then starts a fresh run and one resumed from the middle of
the epoch, each in a process of its own. Exits with 1 where a run takes more than 1 GiB above a run on a few rows, or
the resumed one longer than 1.5 times the fresh one to its first step.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

BATCH = 32

RUN = """
import json, resource, sys, time
started = time.perf_counter()
import torch
from transformers import TrainerCallback
from resumecheck.embedding.arguments import parse_train_arguments
from resumecheck.embedding.train import build_trainer

torch.set_num_threads(1)
options, middle, resume = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
trainer = build_trainer(*parse_train_arguments(options))
built = time.perf_counter()
first = []

class Stops(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        first.append(time.perf_counter())
        if middle:
            state.global_step = middle  # what follows is a checkpoint in the middle of the epoch
            control.should_save = True
        control.should_training_stop = True

trainer.add_callback(Stops())
trainer.train(resume_from_checkpoint=resume)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"build": built - started, "first_step": first[0] - built, "peak_gib": peak,
                  "step": trainer.state.global_step}))
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the corpus (default: %(default)s)")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        encoder = write_encoder(directory / "encoder")
        few = run(encoder, write_rows(directory / "few.jsonl", 200), directory / "few")
        data = write_rows(directory / "rows.jsonl", rows)
        print(f"{rows} rows, {data.stat().st_size / 2**20:.0f} MiB of JSONL", flush=True)
        reading = run(encoder, data, directory / "reading")
        print(f"read for the first time: built after {reading['build']:.1f} s", flush=True)
        middle = rows // BATCH // 2
        run(encoder, data, directory / "middle", middle=middle)
        fresh = run(encoder, data, directory / "fresh")
        resumed = run(encoder, data, directory / "middle", resume=directory / "middle" / f"checkpoint-{middle}")
    ratio = (resumed["build"] + resumed["first_step"]) / (fresh["build"] + fresh["first_step"])
    steps_only = resumed["first_step"] / fresh["first_step"]
    extra = max(reading["peak_gib"], fresh["peak_gib"], resumed["peak_gib"]) - few["peak_gib"]
    print(
        f"fresh run: built after {fresh['build']:.2f} s, first step {fresh['first_step']:.2f} s later\n"
        f"resumed at step {middle} (ended at {resumed['step']}): built after {resumed['build']:.2f} s, first step "
        f"{resumed['first_step']:.2f} s later\n"
        f"to the first step, resumed against fresh: {ratio:.2f} in all, {steps_only:.2f} once the trainer is built\n"
        f"most memory above a run on 200 rows: {extra:.2f} GiB"
    )
    return 0 if ratio <= 1.5 and extra <= 1.0 else 1


def run(
    encoder: Path, data: Path, output_dir: Path, *, middle: int = 0, resume: Path | None = None
) -> dict[str, float]:
    """Train one step in a process of its own, and say what it took."""
    options = [
        *("--model_name_or_path", str(encoder), "--train_data", str(data), "--output_dir", str(output_dir)),
        *("--cache_path", str(data.parent / "cache"), "--per_device_train_batch_size", str(BATCH)),
        *("--train_group_size", "2", "--query_max_len", "16", "--passage_max_len", "16", "--num_train_epochs", "2"),
        *("--save_strategy", "no", "--use_cpu", "true", "--disable_tqdm", "true"),
    ]
    command = [sys.executable, "-c", RUN, json.dumps(options), str(middle), str(resume or "")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(ended.stderr)
    return json.loads(ended.stdout.splitlines()[-1])


def write_rows(path: Path, count: int) -> Path:
    """Rows of random words."""
    draw = random.Random(0)
    words = [f"w{number}" for number in range(2000)]

    def text() -> str:
        return " ".join(draw.choices(words, k=6))

    with path.open("w", encoding="utf-8") as lines:
        for _ in range(count):
            lines.write(json.dumps({"query": text(), "pos": [text()], "neg": [text()]}) + "\n")
    return path


def write_encoder(directory: Path) -> Path:
    """A BERT of a few thousand parameters."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    directory.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(2000))]
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(directory)
    BertTokenizerFast(vocab=str(directory / "vocab.txt")).save_pretrained(directory)
    return directory


if __name__ == "__main__":
    sys.exit(main())
