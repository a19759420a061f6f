"""The block ``mining``: its defaults, and what is refused when the profile is read."""

from pathlib import Path
from typing import Any

import pytest

from im_assets.definitions import definitions
from im_assets.rounds.experiment import arms_of, round_experiments
from im_assets.selection.selecting import SelectionError
from im_resources.study import ProfileError, Study, load_study
from tests.study import write_profile


def load(folder: Path, **blocks: Any) -> Study:
    return load_study(str(write_profile(folder, folder / "model", **blocks)))


def names(study: Study) -> set[str]:
    graph = definitions(study, "demo").resolve_asset_graph()
    return {key.to_user_string() for key in graph.get_all_asset_keys()}


def test_defaults(tmp_path: Path) -> None:
    mining = load(tmp_path, mining={}).mining
    assert mining is not None
    assert (mining.rounds, mining.seeds) == (3, 3)
    strategies = {name: arm.strategy for name, arm in mining.strategies.items()}
    assert strategies == {"rule": "rule", "random": "random"}


def test_without_the_block_there_are_no_rounds(tmp_path: Path) -> None:
    bare, rounds = load(tmp_path), load(tmp_path, mining={"rounds": 2})
    assert round_experiments(bare) == []
    kinds = ("rule", "samples", "adapters", "losses")
    of_rounds = {f"round_{n}_{kind}" for n in (1, 2) for kind in kinds} | {"mining_rounds"}
    assert names(rounds) - names(bare) == of_rounds
    assert names(bare) < names(rounds)


def test_no_code_version_of_what_was_there_changes(tmp_path: Path) -> None:
    def versions(study: Study) -> dict[str, str | None]:
        graph = definitions(study, "demo").resolve_asset_graph()
        keys = graph.get_all_asset_keys()
        return {key.to_user_string(): graph.get(key).code_version for key in keys}

    bare, rounds = versions(load(tmp_path)), versions(load(tmp_path, mining={"rounds": 2}))
    changed = {name for name, version in bare.items() if rounds[name] != version}
    assert changed == {"study_report"}  # which tells of the rounds


def test_no_two_finetunes_of_all_rounds_share_a_seed(tmp_path: Path) -> None:
    study = load(tmp_path, mining={"rounds": 3, "seeds": 2, "strategies": STRATEGIES})
    arms = [arm for number in (1, 2, 3) for arm in arms_of(study, number).values()]
    assert [arm.seed for arm in arms] == list(range(18))
    # By name: the order in the profile is none of what is drawn.
    assert [arm.name for arm in arms[:6]] == ["long"] * 2 + ["random"] * 2 + ["rule"] * 2
    assert arms[6].key == "long-6-seed-006"
    keys = [key for experiment in round_experiments(study) for key in experiment.keys]
    assert keys == [arm.key for arm in arms]


STRATEGIES = {
    "rule": "rule",
    "random": "random",
    "long": {"strategy": "highest", "options": {"indicator": "len_out"}},
}


@pytest.mark.parametrize(
    ("mining", "message"),
    [
        ({"rounds": 0}, r"mining\.rounds: .*greater than or equal to 1"),
        ({"rounds": 10}, r"mining\.rounds: .*less than or equal to 9"),
        ({"seeds": 0}, r"mining\.seeds: .*greater than or equal to 1"),
        ({"round": 2}, r"mining\.round: unknown setting; did you mean 'rounds'"),
        ({"strategies": {"random": "random"}}, "needs `rule: rule`"),
        ({"strategies": {"rule": "random"}}, "its strategy is 'random', and has to be 'rule'"),
        ({"strategies": {"rule": "rule", "random": "rule"}}, "has to be 'random'"),
        ({"strategies": {"rule": "rule", "any": "random"}}, "there is one random arm"),
        ({"strategies": {"rule": "rule", "../x": "lowest"}}, r"mining\.strategies"),
    ],
)
def test_a_block_that_cannot_be_is_refused(
    tmp_path: Path, mining: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        load(tmp_path, mining=mining)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"mining": {}, "scoring": {"score": "members"}}, "mining: .*set scoring.score: all"),
        ({"mining": {}, "rule": {"source": "published_v1"}}, "mining: every round fits a rule"),
        ({"rule": {"points": ["mixtures", "rounds"]}},
         "names rounds, which need the block mining that is not set"),
        ({"rule": {"points": ["rounds"]}, "mining": {}}, "has to begin with mixtures"),
    ],
)  # fmt: skip
def test_a_study_that_rounds_do_not_fit_is_refused(
    tmp_path: Path, blocks: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        load(tmp_path, **blocks)


def test_nothing_is_finetuned_in_a_study_that_fits_nothing(tmp_path: Path) -> None:
    profile = {"data": {"candidates": {}}, "rule": {"source": "published_v1"}, "mining": {}}
    with pytest.raises(ProfileError, match="mining: needs finetunes"):
        load(tmp_path, **profile)


def test_an_unknown_strategy_is_named_with_its_place(tmp_path: Path) -> None:
    wrong = {"rule": "rule", "long": {"strategy": "highest", "options": {"indicator": "len_uot"}}}
    study = load(tmp_path, mining={"strategies": wrong})
    place = r"mining\.strategies\.long\.options\.indicator: .*did you mean 'len_out'"
    with pytest.raises(SelectionError, match=place):
        definitions(study, "demo")
