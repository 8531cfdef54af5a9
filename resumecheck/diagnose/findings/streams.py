"""RC3xx: the global random streams."""

from __future__ import annotations

from resumecheck.diagnose.findings.kind import FindingKind

KINDS: tuple[FindingKind, ...] = (
    FindingKind(
        code="RC301",
        component="rng-python",
        title="Python's random stream is not restored",
        advice="Save random.getstate() with the checkpoint and restore it after the data is skipped, before the first "
        "forward.",
        meaning="What draws from `random` in the training process (augmentation, mixing, dropping of layers) draws "
        "other numbers than in the uninterrupted run.",
        causes=(
            "Only torch's stream is saved (the first draft of transformers #11582).",
            "The streams are not restored where the checkpoint lies at the end of an epoch (transformers #17032).",
            "An error of loading the streams is swallowed, and training goes on (transformers #14994).",
        ),
        example="""
            from pathlib import Path

            import torch
            from transformers import Trainer


            class OwnStreams(Trainer):
                def _save_rng_state(self, output_dir):
                    torch.save({"torch": torch.get_rng_state()}, Path(output_dir) / "streams.pt")

                def _load_rng_state(self, checkpoint):
                    if checkpoint is not None:
                        torch.set_rng_state(torch.load(Path(checkpoint) / "streams.pt")["torch"])
            """,
        cure="""
            import random
            from pathlib import Path

            import torch
            from transformers import Trainer


            class OwnStreams(Trainer):
                def _save_rng_state(self, output_dir):
                    streams = {"torch": torch.get_rng_state(), "python": random.getstate()}
                    torch.save(streams, Path(output_dir) / "streams.pt")

                def _load_rng_state(self, checkpoint):
                    if checkpoint is not None:
                        streams = torch.load(Path(checkpoint) / "streams.pt")
                        torch.set_rng_state(streams["torch"])
                        random.setstate(streams["python"])
            """,
    ),
    FindingKind(
        code="RC302",
        component="rng-numpy",
        title="NumPy's global random stream is not restored",
        advice="Save numpy.random.get_state() with the checkpoint and restore it before the first forward, or use a "
        "keyed Generator.",
        meaning="What draws from `numpy.random` in the training process (mixup, sampling of negatives) draws other "
        "numbers than in the uninterrupted run.",
        causes=(
            "Only torch's stream is saved (the first draft of transformers #11582).",
            "NumPy's state needs an entry in torch's list of safe globals; loading fails without it (transformers "
            "#40500), and the error is swallowed.",
        ),
        example="""
            from pathlib import Path

            import numpy as np
            import torch
            from transformers import Trainer


            class MixesUp(Trainer):
                def compute_loss(self, model, inputs, *args, **kwargs):
                    return super().compute_loss(model, inputs, *args, **kwargs) * np.random.beta(2, 2)

                def _save_rng_state(self, output_dir):
                    torch.save(torch.get_rng_state(), Path(output_dir) / "stream.pt")

                def _load_rng_state(self, checkpoint):
                    if checkpoint is not None:
                        torch.set_rng_state(torch.load(Path(checkpoint) / "stream.pt"))
            """,
        cure="""
            import numpy as np
            from transformers import Trainer


            class MixesUp(Trainer):
                def compute_loss(self, model, inputs, *args, **kwargs):
                    draw = np.random.default_rng([self.args.seed, self.state.global_step])  # in need of no checkpoint
                    return super().compute_loss(model, inputs, *args, **kwargs) * draw.beta(2, 2)
            """,
    ),
    FindingKind(
        code="RC303",
        component="rng-torch",
        title="torch's random stream is not restored",
        advice="Save torch.get_rng_state() with the checkpoint, restore it before the first forward, and reseed "
        "nothing after that.",
        meaning="Dropout and everything else that draws on the CPU draws other numbers than in the uninterrupted run. "
        "Nothing looks wrong: the loss is as good, and it is another run.",
        causes=(
            "The streams are not restored where the checkpoint lies at the end of an epoch (transformers #17032).",
            "A seed is set after the streams were restored (ms-swift #9935).",
            "Something draws after the streams were restored: each new iterator of a DataLoader does (pytorch #80119).",
            "Another process's stream is restored (Megatron-LM #6858).",
            "The file is missing or cannot be loaded, and training goes on (transformers #14994).",
        ),
        example="""
            from transformers import Trainer, set_seed


            class Seeds(Trainer):
                def _load_rng_state(self, checkpoint):
                    super()._load_rng_state(checkpoint)
                    set_seed(self.args.seed)  # the stream starts again, as at step 0
            """,
        cure="""
            from transformers import Trainer, set_seed


            class Seeds(Trainer):
                def _load_rng_state(self, checkpoint):
                    set_seed(self.args.seed)
                    super()._load_rng_state(checkpoint)  # nothing is seeded after this
            """,
    ),
    FindingKind(
        code="RC304",
        component="rng-cuda",
        title="torch's CUDA random streams are not restored",
        advice="Save torch.cuda.get_rng_state_all() with the checkpoint and restore it before the first forward.",
        meaning="Dropout and everything else that draws on a GPU draws other numbers than in the uninterrupted run.",
        causes=(
            "Only the CPU's stream is saved: torch.get_rng_state() has nothing of the GPU's.",
            "The number of GPUs has changed (transformers #14554), or a process's file is missing, and training goes "
            "on (transformers #14994).",
            "Another process's stream is restored (Megatron-LM #6858).",
        ),
        example="""
            from pathlib import Path

            import torch
            from transformers import Trainer


            class OwnStreams(Trainer):
                def _save_rng_state(self, output_dir):
                    torch.save(torch.get_rng_state(), Path(output_dir) / "stream.pt")  # the CPU's

                def _load_rng_state(self, checkpoint):
                    if checkpoint is not None:
                        torch.set_rng_state(torch.load(Path(checkpoint) / "stream.pt"))
            """,
        cure="""
            from pathlib import Path

            import torch
            from transformers import Trainer


            class OwnStreams(Trainer):
                def _save_rng_state(self, output_dir):
                    streams = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
                    torch.save(streams, Path(output_dir) / "streams.pt")

                def _load_rng_state(self, checkpoint):
                    if checkpoint is not None:
                        streams = torch.load(Path(checkpoint) / "streams.pt")
                        torch.set_rng_state(streams["cpu"])
                        torch.cuda.set_rng_state_all(streams["cuda"])
            """,
    ),
)
