"""RC6xx: saving that disturbs, and runs that do not repeat themselves."""

from __future__ import annotations

from resumecheck.diagnose.findings.kind import FindingKind

KINDS: tuple[FindingKind, ...] = (
    FindingKind(
        code="RC601",
        component="saving",
        title="writing a checkpoint changes the run that writes it",
        advice="Saving must draw from no random stream and leave weights, moments and modes as they are.",
        meaning="A run that writes checkpoints goes on differently from one that writes none. The resumed run may be "
        "right; the two that are compared with it are not the same.",
        causes=(
            "Averaged weights are put in place to be saved, and not taken out again (waifu-diffusion #31).",
            "Saving evaluates, and evaluating draws from torch's stream: each iterator of a DataLoader does (pytorch "
            "#80119), a sampler without a generator does (transformers #48025).",
            "Saving draws a name or a sample from a global stream, casts the model itself instead of a copy, or frees "
            "what it has saved.",
        ),
        example="""
            from pathlib import Path

            import torch
            from transformers import Trainer


            class NotesASample(Trainer):
                def _save_checkpoint(self, model, trial):
                    super()._save_checkpoint(model, trial)
                    index = torch.randint(len(self.train_dataset), ()).item()  # moves the stream of dropout on
                    Path(self.args.output_dir, "sample.txt").write_text(str(self.train_dataset[index]))
            """,
        cure="""
            from pathlib import Path

            import torch
            from transformers import Trainer


            class NotesASample(Trainer):
                def _save_checkpoint(self, model, trial):
                    super()._save_checkpoint(model, trial)
                    own = torch.Generator().manual_seed(self.state.global_step)
                    index = torch.randint(len(self.train_dataset), (), generator=own).item()
                    Path(self.args.output_dir, "sample.txt").write_text(str(self.train_dataset[index]))
            """,
    ),
    FindingKind(
        code="RC602",
        component="nondeterminism",
        title="the uninterrupted run does not repeat itself",
        advice="Seed every stream, take no order from a set, use deterministic kernels; until then resume cannot be "
        "judged bitwise.",
        meaning="Two uninterrupted runs of the same target differ. Whether a resumed run is the same run cannot be "
        "said before that is mended, or only within the spread (--tolerance noise).",
        causes=(
            "The order of a set or of hashes: optimizers refuse a set of parameters for that (pytorch #6031), and data "
            "that passed through one has lost its order (sentence-transformers #3069).",
            "A generator without a seed, or a sampler that shuffles without one (transformers #48025).",
            "The number of threads changes the order of sums (pytorch #88718, #2201).",
            "A kernel that is not deterministic (torch.use_deterministic_algorithms names it).",
            "Time, process ids, the order in which a directory is listed.",
        ),
        example="""
            import torch


            class Distinct(torch.utils.data.Dataset):
                def __init__(self, rows, names):
                    self.rows, self.names = rows, list(set(names))  # in another order in each process

                def __len__(self):
                    return len(self.names)

                def __getitem__(self, index):
                    return self.rows[self.names[index]]
            """,
        cure="""
            import torch


            class Distinct(torch.utils.data.Dataset):
                def __init__(self, rows, names):
                    self.rows, self.names = rows, list(dict.fromkeys(names))  # in the order in which they come

                def __len__(self):
                    return len(self.names)

                def __getitem__(self, index):
                    return self.rows[self.names[index]]
            """,
    ),
)
