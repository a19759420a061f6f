"""full: all weights of a small base. Each worker holds a copy, its gradients and AdamW's moments.

That is 16 bytes a weight (2 GB for a base of 135 million) beside the shared base, and a published
folder as large as the base for every trial.
"""

from im_assets.experiments.trainers import TrainingJob, trainer
from im_resources.language_model.training import CHECKPOINTING, Training

LORA = ("lora_rank", "lora_alpha", "target_modules", "use_rslora", "use_dora")


@trainer("full", version=1, ignores=LORA, quantized=False)
def full(job: TrainingJob) -> Training:
    """Full finetuning; the folder is a whole model, as ``save_pretrained`` writes it.

    Over a base in bfloat16 the weights are trained in float32, the matrix products are in bfloat16
    (mixed precision), and the result is rounded to bfloat16 once, at the end.
    """
    import torch

    from im_resources.language_model.finetuned import save_whole, trainable_copy
    from im_resources.language_model.training import train

    model = trainable_copy(job.base)
    if job.settings.gradient_checkpointing:
        model.activation_checkpointing_enable(CHECKPOINTING)
    training = train(
        model,
        list(model.parameters()),
        job.encoded(),
        job.settings,
        job.seed,
        job.on_step,
        torch.bfloat16 if job.base.precision == "bf16" else None,
    )
    save_whole(model, job.base, job.folder)
    return training
