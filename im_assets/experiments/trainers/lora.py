"""lora: a low-rank adapter over the frozen, shared base; the paper's finetunes are of this kind."""

from im_assets.experiments.trainers import TrainingJob, trainer
from im_resources.language_model.training import Training


@trainer("lora", version=1, together=True)
def lora(job: TrainingJob) -> Training:
    """LoRA, rsLoRA or DoRA as the settings say; the folder is an ordinary PEFT adapter."""
    from im_resources.language_model.lora import add_adapter, train_adapter

    adapter = add_adapter(job.base, job.settings, job.seed)
    training = train_adapter(
        adapter, job.encoded(), job.settings, job.seed, job.on_step, job.engine
    )
    adapter.save_pretrained(job.folder)
    return training
