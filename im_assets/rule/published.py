"""The two rules that the paper publishes, for users who cannot afford a study of their own.

Cao et al. 2023, *Instruction Mining*, arXiv 2307.06290: version 1 regresses on reward, response
length and nearest-neighbour distance; versions 2 and 3 on reward and three UniEval scores.
"""

from typing import Literal

from im_assets.rule.model import CONSTANT, Caution, Coefficient, Rule, UsedIndicator, UsedModel

_CAVEAT = (
    "A published rule: it holds only with the paper's reward model "
    "(OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5) and the paper's base model (LLaMA-7B in "
    "v1); with other models, or with proxies of the indicators, even its ranking is unproven."
)


def published_rule(source: Literal["published_v1", "published_v2"]) -> Rule:
    """The rule of the paper's v1, or of its v2 and v3.

    The paper gives point estimates only, so standard errors, p-values and fit are None.
    """
    return _RULES[source]


# How the paper computes its indicators. Which sentence embedding it took is not printed.
_USED = {
    "reward": UsedIndicator(name="reward", backend="reward_model", uses=("reward",)),
    "len_out": UsedIndicator(name="len_out", backend="response_length", uses=("tokenizer",)),
    "knn_6": UsedIndicator(name="knn_6", backend="nearest_neighbour"),
    "nat": UsedIndicator(name="nat", backend="unieval_naturalness", uses=("unieval",)),
    "coh": UsedIndicator(name="coh", backend="unieval_coherence", uses=("unieval",)),
    "und": UsedIndicator(name="und", backend="unieval_understandability", uses=("unieval",)),
}
_MODELS = (
    UsedModel(role="reward", name="OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5"),
    UsedModel(role="unieval", name="MingZhong/unieval-dialog"),
)


def _rule(
    source: Literal["published_v1", "published_v2"],
    reference: str,
    constant: float,
    slopes: dict[str, float],
    set_size: int,
    base: str = "",
) -> Rule:
    return Rule(
        source=source,
        reference=reference,
        constant=Coefficient(name=CONSTANT, estimate=constant),
        coefficients=tuple(Coefficient(name=n, estimate=b) for n, b in slopes.items()),
        candidates=tuple(slopes),
        indicators_used=tuple(_USED[name] for name in slopes),
        models_used=(*_MODELS, *([UsedModel(role="base", name=base)] if base else [])),
        set_size=set_size,
        warnings=(Caution(kind="published", note=_CAVEAT),),
    )


_RULES = {
    # One secondary source prints the constant as 1.0694; a constant does not change a ranking.
    "published_v1": _rule(
        "published_v1",
        "Cao et al. 2023, arXiv 2307.06290v1",
        1.0684,
        {"reward": -0.1498, "len_out": 8.257e-5, "knn_6": -0.9350},
        base="LLaMA-7B",
        set_size=2000,
    ),
    "published_v2": _rule(
        "published_v2",
        "Cao et al. 2023, arXiv 2307.06290v2 and v3",
        0.0274,
        {"reward": -0.0078, "und": 0.4421, "nat": -0.3212, "coh": -0.1520},
        set_size=1000,
    ),
}
