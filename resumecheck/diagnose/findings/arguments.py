"""RC7xx: arguments and environment."""

from __future__ import annotations

from resumecheck.diagnose.findings.kind import FindingKind

KINDS: tuple[FindingKind, ...] = (
    FindingKind(
        code="RC701",
        component="arguments",
        title="the resumed run trains with other arguments",
        advice="Give the same arguments on resume; what build() derives from the environment or the output directory "
        "must not change.",
        meaning="A training argument that has an effect on the steps is not what it was. Whatever else differs is its "
        "consequence.",
        causes=(
            "The script decides by the checkpoints it finds: no warmup, other clipping, another batch size on a "
            "resume.",
            "The batch size that was found automatically is not the saved one (transformers #25956), or a saved one "
            "wins over the one that is given (transformers #43770).",
            "Training is made longer, which stretches the schedule (transformers #18070).",
            "Steps between logs, evaluations and checkpoints are taken from the checkpoint, and the new ones are "
            "ignored (transformers #28867).",
            "A callback changes the arguments while training goes on.",
        ),
        example="""
            from pathlib import Path

            from transformers import TrainingArguments


            def arguments(output_dir):
                resumed = any(Path(output_dir).glob("checkpoint-*"))
                return TrainingArguments(output_dir, max_grad_norm=0.1 if resumed else 1.0)  # careful after a crash
            """,
        cure="""
            from transformers import TrainingArguments


            def arguments(output_dir):
                return TrainingArguments(output_dir, max_grad_norm=1.0)
            """,
    ),
)
