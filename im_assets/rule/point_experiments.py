"""The experiments whose trials are points and are measured before the rule is fitted."""

from collections.abc import Callable

from im_assets.experiments.experiment import Experiment
from im_assets.mixtures.experiment import mixture_experiment
from im_assets.rounds.experiment import round_experiments
from im_assets.univariate.experiment import univariate_experiment
from im_resources.study import Study

EXPERIMENTS: dict[str, Callable[[Study], list[Experiment]]] = {
    "mixtures": lambda study: [mixture_experiment(study)],
    "univariate": lambda study: [univariate_experiment(study)],
    "rounds": round_experiments,
}


def point_experiments(study: Study) -> list[Experiment]:
    """The experiments that ``rule.points`` names, in its order."""
    names = [name for name in study.rule.points if name in EXPERIMENTS]
    return [experiment for name in names for experiment in EXPERIMENTS[name](study)]
