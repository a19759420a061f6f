"""Nothing is selected by a rule that chance alone gives as well.

It holds for what the study selects (`<pool>_selection`), and for no other use of a strategy: the
validation may finetune on what such a rule selects, which is how one finds out what it is worth.
"""

from im_assets.rule.chance import told
from im_assets.rule.model import Rule
from im_assets.selection.registry import strategy_of
from im_assets.selection.selecting import SelectionError
from im_resources.study import SelectionSettings, StrategySettings


def by_chance(settings: StrategySettings, rule: Rule) -> str:
    """Why a selection by this strategy is one by chance, in a sentence; '' where it is not.

    A published rule, and one of which nobody tested it, is not told to be one of chance.
    """
    if not strategy_of(settings)[0].by_rule or rule.beyond_chance is not False:
        return ""
    assert rule.chance is not None
    why = told(rule.chance, rule.n, rule.predicts.plural)
    return f"the strategy {settings.strategy} ranks by the study's rule, and {why}"


def refusal(settings: SelectionSettings, rule: Rule) -> str:
    """Why nothing is selected, and what would do, in a sentence; '' where something is."""
    why = by_chance(settings, rule)
    if not why or settings.when_chance == "select":
        return ""
    return (
        f"Nothing is selected: {why}. Finetune on more mixtures (mixtures.seeds), choose another "
        "strategy (selection.strategy), or set selection.when_chance: select, which selects all "
        "the same and says so"
    )


def require_beyond_chance(settings: SelectionSettings, rule: Rule) -> None:
    """Raises SelectionError when nothing is to be selected by this rule (see `refusal`)."""
    if why := refusal(settings, rule):
        raise SelectionError(why)
