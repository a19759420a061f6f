"""nat, coh, und: UniEval's dialogue evaluator, the paper's MingZhong/unieval-dialog.

The response is judged as a turn of a dialogue in which one turn came before it: the prompt. Each of
the three is a question of its own to the model (``models.unieval``), so each costs a pass.
"""

from typing import TYPE_CHECKING

import numpy as np

from im_assets.scoring.batch import ScoringBatch
from im_assets.scoring.registry import IndicatorError, indicator

if TYPE_CHECKING:
    from im_resources.language_model.unieval import Dimension


@indicator("unieval_naturalness", version=1, uses=("unieval",))
def naturalness(batch: ScoringBatch) -> np.ndarray:
    """Is this what somebody would naturally say? In [0, 1]; the prompt is not looked at."""
    return _answers(batch, "naturalness")


@indicator("unieval_coherence", version=1, uses=("unieval",))
def coherence(batch: ScoringBatch) -> np.ndarray:
    """Does the response follow from the prompt? In [0, 1]."""
    return _answers(batch, "coherence")


@indicator("unieval_understandability", version=1, uses=("unieval",))
def understandability(batch: ScoringBatch) -> np.ndarray:
    """Can the response be understood? In [0, 1]; the prompt is not looked at."""
    return _answers(batch, "understandability")


def _answers(batch: ScoringBatch, dimension: "Dimension") -> np.ndarray:
    """Raises IndicatorError when the profile sets no ``models.unieval``."""
    from im_resources.language_model.unieval import dialogue_history, load_unieval, question

    study, gpu = batch.models.study, batch.models.gpu
    source = study.models.unieval
    if source is None:
        raise IndicatorError(
            f"unieval_{dimension} needs models.unieval, which the profile does not set"
        )
    model = gpu.owned("unieval", source, lambda: load_unieval(source, gpu.torch_device()))
    pairs = zip(batch.prompts, batch.examples["output"], strict=True)
    questions = [
        question(dimension, response, dialogue_history([prompt])) for prompt, response in pairs
    ]
    return model.score(questions, study.scoring.tokens_per_batch)
