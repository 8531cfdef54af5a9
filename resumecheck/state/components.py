"""The table of components and of the rungs of the causal ladder: the one place that orders and explains them."""

from __future__ import annotations

#: component -> what it is, in the order in which a cause is blamed.
COMPONENTS: dict[str, str] = {
    "resume-failure": "the run dies only when it is resumed",
    "saving": "writing a checkpoint changes the run that writes it",
    "nondeterminism": "the uninterrupted run does not repeat itself",
    "arguments": "the resumed run trains with other arguments",
    "checkpoint-files": "files of the checkpoint are missing, torn or not its own",
    "dtype": "a tensor came back with another data type",
    "weights": "the trainable and frozen parameters of the model",
    "buffers": "the buffers of the model, persistent or not",
    "loss-parameters": "parameters that are trained but are not part of the model",
    "optimizer-moments": "the optimizer's running statistics, by parameter name",
    "optimizer-step": "the optimizer's own step counts, by parameter name",
    "optimizer-hyperparameters": "the options of the optimizer's parameter groups, and the members of each group",
    "lr-scheduler": "the state of the learning-rate schedule, and the learning rate it has set",
    "grad-scaler": "the loss scale of mixed-precision training",
    "data-order": "the order in which the samples come",
    "data-position": "how far into the data the run is",
    "data-content": "what a sample holds when it arrives at the model",
    "rng-python": "Python's global random stream",
    "rng-numpy": "NumPy's global random stream",
    "rng-torch": "torch's random stream on the CPU",
    "rng-cuda": "torch's random streams on CUDA devices",
    "gradient-accumulation": "gradients that are already accumulated, and the position in the accumulation window",
    "counters": "step, epoch and the other counters of the trainer",
    "callbacks": "the state of callbacks",
    "hidden-state": "state that no checkpoint holds: a Python attribute, a closure, a generator",
}

ORDER: dict[str, int] = {name: index for index, name in enumerate(COMPONENTS)}

#: rung -> what is compared there, in causal order.
RUNGS: dict[str, str] = {
    "loading": "whether the resumed run gets as far as its first step",
    "state-after-loading": "the training state just before the first forward after the resume",
    "identity": "whether the scheduler, the optimizer and the model still hold each other",
    "sample-ids": "which samples make up the batch",
    "batch-content": "the bits of the batch after collation",
    "random-streams": "the random streams just before the forward",
    "loss": "the loss of each micro-batch",
    "gradients": "the accumulated gradients before clipping",
    "learning-rate": "the learning rate of each parameter group that the update uses",
    "state-after-step": "the training state after the update, just before the next forward",
    "number-of-steps": "where the run ends",
    "events": "results of evaluations",
    "logs": "logged numbers",
}

RUNG_ORDER: dict[str, int] = {name: index for index, name in enumerate(RUNGS)}
