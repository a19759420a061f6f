"""A pool of two languages through a whole study: told, shown, and kept apart where asked."""

import json
from collections.abc import Iterator

import dagster as dg
import pytest

from im_assets.reporting.gather import gather
from im_assets.reporting.report import make_report
from tests.language_model.models import write_model
from tests.study import Platform, write_data, write_profile

SEASONS = [
    "春天来了，花儿开了，小鸟在树上唱歌。",
    "夏天很热，孩子们喜欢在河里游泳。",
    "秋天的叶子是金黄色的，农民忙着收获。",
    "冬天下雪的时候，大家围着火炉讲故事。",
]
CHINESE = [
    {
        "instruction": f"请写第{i}个关于季节的故事。",
        "output": "".join(SEASONS[: 1 + i % 4]) + f"第{i}。",
    }
    for i in range(12)
]
ENGLISH = [
    {"instruction": f"Why is number {i} so well liked?", "output": f"It is {i}. " * 8}
    for i in range(28)
]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("languages")
    data = write_data(home / "data")
    mine = home / "data" / "mine.jsonl"
    rows = [json.dumps(row, ensure_ascii=False) + "\n" for row in CHINESE + ENGLISH]
    mine.write_text("".join(rows), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("IM_HOME", str(home))
        profile = write_profile(
            home,
            write_model(home / "model"),
            data=data | {"unseen": {"mine": {"path": str(mine)}}},
            scoring={"indicators": {"len_out": "response_length", "mtld": "mtld"}},
            selection={"strategy": "highest", "options": {"indicator": "mtld"}, "size": 10},
        )
        platform = Platform(profile, instance)
        assert platform.run_study().success
        yield platform


def warned(result: dg.ExecuteInProcessResult) -> str:
    [check] = [
        c for c in result.get_asset_check_evaluations()
        if c.check_name == "selection_is_not_of_one_kind"
    ]  # fmt: skip
    return "" if check.passed else str(check.description)


def test_each_example_has_its_language(platform: Platform) -> None:
    pool = platform.table("mine_dataset")
    told = pool.groupby(pool["instruction"].str.startswith("请"))["language"].agg(set)
    assert told[True] == {"zh"}
    assert "zh" not in told[False]
    assert pool["language_confidence"].between(0, 1).all()
    assert set(platform.table("candidate_datasets")["language"]) == {"en"}


def test_a_selection_of_one_language_is_told_and_strata_keep_it_from_it(platform: Platform) -> None:
    assert set(platform.table("mine_selection")["language"]) == {"zh"}
    said = warned(platform.materialize("mine_selection"))
    assert "100% of the selection is zh (language), and 30% of the pool" in said
    report = make_report(gather(platform.study, platform.warehouse, False), False, {})
    assert said in report.document()["sections"]["answer"]["texts"][0]
    platform.change(selection={"stratify": "language"})
    result = platform.materialize("mine_selection")
    assert result.success
    assert "language" not in warned(result)
    languages = platform.table("mine_selection")["language"].value_counts()
    assert languages["zh"] == 3
    platform.change(selection={"stratify": None, "max_share": {"language": 0.5}})
    assert platform.materialize("mine_selection").success
    assert (platform.table("mine_selection")["language"] == "zh").sum() == 5
