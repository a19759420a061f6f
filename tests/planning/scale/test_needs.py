"""The arithmetic and its units: by hand, and in proportion."""

import pytest
from transformers import LlamaConfig

from im_assets.planning.scale.coefficients import coefficients
from im_assets.planning.scale.machines import MACHINES
from im_assets.planning.scale.memory import memory_of, trained
from im_assets.planning.scale.models import MINILM_NUMBERS, MODELS, Model, decoder
from im_assets.planning.scale.needs import SPAN, Prices, needs_of
from im_assets.planning.scale.ranges import Range
from im_assets.planning.scale.totals import PROMPT, RESPONSE, Question
from im_resources.language_model.flops import Shape, shape_from
from im_resources.study import FinetuningSettings

H100, KNOWN = MACHINES["h100"], coefficients()


def value(question: Question, figure: str, count: int = 1, **more: object) -> Range:
    found = needs_of(question.totals(), H100, count, **more)[figure]  # type: ignore[arg-type]
    assert found is not None
    return found


def near(found: Range, low: float, high: float, share: float = 0.03) -> bool:
    return found.low == pytest.approx(low, share) and found.high == pytest.approx(high, share)


def test_a_finetune_of_a_7b_is_four_operations_a_weight_and_token() -> None:
    # Attention and adapters are in the measured rates' operations too: some percent.
    operations = 4 * 6.6e9 * (1000 * 2000 * 3 * 400.9)
    hours = [operations / (989e12 * share) / 3600 for share in (0.55, 0.33)]
    assert near(value(Question("7b"), "finetuning"), *hours)


def test_scoring_is_two_operations_a_weight_and_token_of_every_row() -> None:
    operations = 2 * 6.6e9 * (10**9 * 400.9)
    hours = [operations / (989e12 * share) / 3600 for share in (0.62, 0.3)]
    assert near(value(Question("7b", pool_rows=10**9), "scoring"), *hours)


def test_bytes_by_hand() -> None:
    question = Question("7b", pool_rows=10**9)
    own = 32 * 2 * 8 * (4096 + 4096) * 4  # q and v of each layer, two matrices of rank 8, float32
    assert value(question, "adapters") == Range.of(1000 * own / 1e12)
    assert near(value(question, "embeddings kept"), 768 * 3.7e-3, 768 * 4.1e-3, 1e-9)
    assert near(value(question, "scores"), 1e9 * 16 * 7.8e-12, 1e9 * 16 * 10.5e-12, 1e-9)
    assert near(value(question, "the base, on each node"), 13.5, 13.5)
    assert near(value(question, "texts"), 1e9 * 2040 * 0.34e-12, 1e9 * 2040 * 0.75e-12, 1e-9)
    commits = value(question, "catalog commits")
    assert (commits.low, commits.high) == (3 * 500_000 + 1000, 3 * 500_000 + 3000)
    assert value(question, "catalog commits", shard=20_000).low == 3 * 50_000 + 1000
    assert value(question, "object store writes").low == commits.low + 4000


def test_twice_the_work_takes_twice_and_twice_the_gpus_half() -> None:
    one, two = Question("7b"), Question("7b", trials=2000, pool_rows=2 * 10**8)
    for figure in ("finetuning", "evaluation", "scoring", "embeddings", "storage together"):
        assert near(value(two, figure), *_ends(value(one, figure) * 2), 1e-6)
    assert near(value(two, "drawing the sets"), *_ends(value(one, "drawing the sets") * 4), 1e-6)
    assert value(one, SPAN, 16).low == pytest.approx(value(one, SPAN, 8).low / 2, 1e-3)
    assert value(one, "GPU time together", 16) == value(one, "GPU time together", 8)


def _ends(found: Range) -> tuple[float, float]:
    return found.low, found.high


def test_few_groups_leave_gpus_without_work() -> None:
    few = Question("7b", trials=4, pool_rows=10_000)
    # Four sets one at a time on three GPUs: two rounds, so as long as six.
    lone, three = value(few, SPAN, 1).high, value(few, SPAN, 3).high
    assert three == pytest.approx(lone / 3 * 1.5, rel=0.1)


def test_a_sample_and_a_smaller_scorer_take_less() -> None:
    rows, whole = 10**8, value(Question("7b"), "scoring")
    part = value(Question("7b", pool_rows=rows, scored_rows=10**6), "scoring")
    assert near(part, whole.low / 100, whole.high / 100, 1e-9)
    small = value(Question("7b", scorer="0.5b"), "scoring")
    assert small.low < whole.low / 5
    assert small.high <= whole.high * 1.3  # a small model keeps a GPU badly busy


def test_costs_are_hours_bytes_and_requests_times_their_prices() -> None:
    question = Question("7b")
    prices = Prices(Range(2, 3), None, Range(20, 20), 6, Range(5, 5))
    needs = needs_of(question.totals(), H100, 8, prices=prices)
    hours, stored, writes = (
        needs[name] for name in ("GPU time together", "storage together", "object store writes")
    )
    assert hours is not None
    assert stored is not None
    assert writes is not None
    share = coefficients()["scheduling_share"]  # of the time, which is paid for too
    assert share is not None
    gpus, kept, asked = hours * (share + 1) * Range(2, 3), stored * 120, writes * 5e-6
    cost = needs["cost, of what is priced"]
    assert cost is not None
    assert near(cost, *_ends(gpus + kept + asked), 1e-9)
    assert needs.figures["cost of cores"].why == "no price given"
    assert "cost of GPUs" not in needs_of(question.totals(), H100).figures


def test_a_70b_needs_nf4_and_checkpointing_on_one_gpu_of_80_gb() -> None:
    totals = Question("70b").totals()
    way = needs_of(totals, H100).way
    assert (way.precision, way.checkpointing, way.fits) == ("nf4", True, "yes")
    refused = needs_of(totals, H100, ways=[("bf16", False), ("bf16", True)])
    assert refused.way.fits == "no"
    assert refused.figures["finetuning"].why == "does not fit on one h100"
    assert refused["cleaning"] is not None
    seven = needs_of(Question("7b").totals(), H100).way
    assert (seven.precision, seven.checkpointing) == ("bf16", False)


def test_a_precision_without_a_measurement_is_told_as_such() -> None:
    needs = needs_of(Question("7b").totals(), H100, ways=[("fp32", False)])
    assert needs.figures["finetuning"].why == "not measured"
    assert needs.figures["memory of a GPU"].why == "not measured in this precision"


def test_memory_grows_with_adapters_and_falls_with_checkpointing() -> None:
    settings, tokens = FinetuningSettings(), 8 * (PROMPT + RESPONSE)
    checkpointed = FinetuningSettings(gradient_checkpointing=True)
    one, two, kept = (
        memory_of(MODELS["7b"], "bf16", chosen, tokens, KNOWN, at_once)
        for chosen, at_once in ((settings, 1), (settings, 2), (checkpointed, 1))
    )
    assert one is not None
    assert two is not None
    assert kept is not None
    assert kept.high < one.low < two.low


def test_all_weights_are_trained_where_the_trainer_says_so() -> None:
    assert trained(MODELS["7b"], FinetuningSettings(trainer="full")) == MODELS["7b"].parameters


@pytest.mark.parametrize(("name", "billions"), [("7b", 6.74), ("8b", 8.03), ("70b", 70.6),
                                                ("0.5b", 0.494), ("1.5b", 1.54),
                                                ("135m", 0.1345)])  # fmt: skip
def test_models_have_the_weights_that_their_cards_tell(name: str, billions: float) -> None:
    assert MODELS[name].parameters / 1e9 == pytest.approx(billions, rel=0.003)


def test_a_shape_is_that_of_transformers_own_model() -> None:
    mine = decoder("small", 3, 64, 160, 4, 2, 500)
    theirs = shape_from(
        LlamaConfig(
            vocab_size=500,
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )
    assert theirs == mine.shape
    of = Model.of("small", theirs)
    assert (of.layers, of.hidden, of.parameters) == (3, 64, mine.parameters)
    with pytest.raises(ValueError, match="no numbered blocks"):
        Model.of("flat", Shape({"dense": (4, 4)}, 4))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": "9b"}, "model: unknown model '9b'; known: 135m"),
        ({"model": "7b", "scorer": "x"}, "scorer: unknown model 'x'"),
        ({"model": "7b", "trials": 0}, "trials: 0; expected 1 or more"),
        ({"model": "7b", "pool_rows": 10, "scored_rows": 11}, "scored_rows: 11; expected 0 to"),
        ({"model": "7b", "pool_rows": 1000}, "examples: 2,000 of a set cannot be drawn from"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=r"expected|unknown|cannot") as error:
        Question(**fields)  # type: ignore[arg-type]
    assert said in str(error.value)


def test_no_gpu_and_no_shard_are_refused() -> None:
    totals = Question("7b").totals()
    with pytest.raises(ValueError, match="count: 0; expected 1 or more"):
        needs_of(totals, H100, 0)
    with pytest.raises(ValueError, match="shard: 0; expected 1 or more"):
        needs_of(totals, H100, shard=0)


def test_an_example_s_embedding_is_of_prompt_and_response() -> None:
    assert MINILM_NUMBERS == 768  # as in the embedding_cache of real_small
