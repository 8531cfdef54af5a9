"""A plain harness for the zoo, independent of resumecheck's engine: fresh processes, final weights, nothing else."""

import dataclasses
import hashlib
import importlib

from tests.plain_server import PlainServer


@dataclasses.dataclass(frozen=True)
class End:
    """How a run ended: a digest of all parameters and buffers, steps by two counts, the error if it died."""

    weights: str
    global_step: int
    steps_run: int
    error: str = ""

    @property
    def result(self):
        """What two runs are compared by."""
        return self.weights, self.global_step


class Server(PlainServer):
    """A preloaded server with one hash seed."""

    def __init__(self, hash_seed):
        super().__init__(
            f"{__name__}:train",
            "transformers.models.bert.modeling_bert",
            "resumecheck.zoo.setups",
            PYTHONHASHSEED=str(hash_seed),
            TOKENIZERS_PARALLELISM="false",
        )

    def run(self, target, output_dir, *, save_at=(), resume_from=None):
        """Run a target to its end in a fresh process."""
        where = None if resume_from is None else str(resume_from)
        end, died = self.ask(target, str(output_dir), tuple(save_at), where)
        return end or End("", -1, -1, died)


def train(target, output_dir, save_at, resume_from):
    """The end of a run in this process."""
    module, name = target.split(":")
    trainer = getattr(importlib.import_module(module), name)(output_dir)
    watch = _watch(set(save_at))
    trainer.add_callback(watch)
    error = ""
    try:
        trainer.train(resume_from_checkpoint=resume_from)
    except Exception as exception:
        error = f"{type(exception).__name__}: {exception}"
    return End(_digest(trainer.model), trainer.state.global_step, watch.steps, error)


def _watch(save_at):
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        steps = 0

        def on_step_end(self, args, state, control, **kwargs):
            self.steps += 1
            if state.global_step in save_at:
                control.should_save = True

    return Watch()


def _digest(model):
    """Over names, types, shapes and bytes of every parameter and buffer; tied ones count under each name."""
    import torch

    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + raw.numpy().tobytes())
    return digest.hexdigest()[:16]
