"""reward: what a reward model, trained on people's preferences, gives the response.

The paper's is OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5; ``models.reward`` takes any
sequence-classification model with one logit. Logits of different models are on different scales.
"""

import numpy as np

from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.registry import IndicatorError, indicator


@indicator("reward_model", version=1, uses=("reward",))
def reward_model(batch: ScoringBatch) -> np.ndarray:
    """The raw logit of each response to its prompt (instruction and input); higher is better.

    Raises IndicatorError when the profile sets no ``models.reward``.
    """
    from im_resources.language_model.reward_model import load_reward_model

    study, gpu = batch.models.study, batch.models.gpu
    source = study.models.reward
    if source is None:
        raise IndicatorError("reward_model needs models.reward, which the profile does not set")
    model = gpu.owned("reward", source, lambda: load_reward_model(source, gpu.torch_device()))
    return model.score(
        batch.prompts, list(batch.examples["output"]), study.scoring.tokens_per_batch
    )
