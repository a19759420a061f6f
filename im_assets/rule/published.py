"""The two rules that the paper publishes, for users who cannot afford a study of their own.

Cao et al. 2023, *Instruction Mining*, arXiv 2307.06290: version 1 regresses on reward, response
length and nearest-neighbour distance; versions 2 and 3 on reward and three UniEval scores.
"""

from typing import Literal

from im_assets.rule.model import CONSTANT, Caution, Coefficient, Rule

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


def _rule(
    source: Literal["published_v1", "published_v2"],
    reference: str,
    constant: float,
    slopes: dict[str, float],
) -> Rule:
    return Rule(
        source=source,
        reference=reference,
        constant=Coefficient(name=CONSTANT, estimate=constant),
        coefficients=tuple(Coefficient(name=n, estimate=b) for n, b in slopes.items()),
        candidates=tuple(slopes),
        warnings=(Caution(kind="published", note=_CAVEAT),),
    )


_RULES = {
    # One secondary source prints the constant as 1.0694; a constant does not change a ranking.
    "published_v1": _rule(
        "published_v1",
        "Cao et al. 2023, arXiv 2307.06290v1",
        1.0684,
        {"reward": -0.1498, "len_out": 8.257e-5, "knn_6": -0.9350},
    ),
    "published_v2": _rule(
        "published_v2",
        "Cao et al. 2023, arXiv 2307.06290v2 and v3",
        0.0274,
        {"reward": -0.0078, "und": 0.4421, "nat": -0.3212, "coh": -0.1520},
    ),
}
