"""Errors of rounds: verdicts are rare where nothing changed, and the stop goes by the estimate."""

import numpy as np
import pytest
from scipy import stats

from im_assets.rounds.deciding import decided
from im_assets.rounds.errors import Errors, Estimate, change, error_of, verdict
from im_assets.rule.model import Coefficient, Rule

SD = 0.02  # of a finetune, in log loss


def errors(values: np.ndarray) -> Errors:
    """Of [strategies, finetunes]."""
    names = [f"arm-{i}" for i in range(len(values))]
    return Errors(values.ravel(), np.repeat(names, values.shape[1]))


def of_size(size: float) -> Errors:
    """Six sets, all off by so much."""
    return errors(np.array([[size, -size, size], [-size, size, -size]]))


def drawn(
    generator: np.random.Generator, kind: str, arms: int, finetunes: int, bias: float
) -> Errors:
    """Errors whose first arm is off by ``bias`` standard deviations, noise of which is one."""
    if kind == "normal":
        noise = generator.standard_normal((arms, finetunes))
    else:
        noise = generator.standard_t(3, (arms, finetunes)) / np.sqrt(3)
    shift = np.array([bias] + [0.0] * (arms - 1))[:, None]
    return errors(SD * (noise + shift))


def rule(*indicators: str) -> Rule:
    terms = [Coefficient(name=name, estimate=0.1, low=0.0, high=1.0) for name in indicators]
    constant = Coefficient(name="constant", estimate=1.0)
    return Rule(source="fitted", constant=constant, coefficients=tuple(terms))


@pytest.mark.parametrize("kind", ["normal", "t3"])
@pytest.mark.parametrize("bias", [0.0, 2.0])
@pytest.mark.parametrize(("arms", "finetunes"), [(2, 2), (2, 3), (2, 8), (4, 3)])
def test_errors_that_do_not_change_are_hardly_ever_called_fallen(
    kind: str, bias: float, arms: int, finetunes: int
) -> None:
    generator, rounds, fell = np.random.Generator(np.random.PCG64(7)), 400, 0
    for _ in range(rounds):
        # The first arm may be off to the other side: another rule, of the same error.
        before = drawn(generator, kind, arms, finetunes, bias)
        now = drawn(generator, kind, arms, finetunes, -bias)
        fell += verdict(change(before, now)) == "fell"
    # One test in a thousand of a share of 5 % exceeds this.
    assert fell <= stats.binom.ppf(0.999, rounds, 0.05)


def test_an_error_that_falls_much_is_seen_to() -> None:
    generator, rounds = np.random.Generator(np.random.PCG64(8)), 200
    seen = [
        verdict(change(drawn(generator, "normal", 2, 5, 6), drawn(generator, "normal", 2, 5, 0)))
        for _ in range(rounds)
    ]
    assert seen.count("fell") > 0.95 * rounds
    assert seen.count("did_not_fall") == 0
    back = [
        verdict(change(drawn(generator, "normal", 2, 5, 0), drawn(generator, "normal", 2, 5, 6)))
        for _ in range(rounds)
    ]
    assert back.count("did_not_fall") > 0.95 * rounds


def test_the_interval_of_an_error_holds_the_true_one() -> None:
    generator, rounds, held = np.random.Generator(np.random.PCG64(9)), 400, 0
    truth = SD * np.sqrt(1 + 2**2 / 2)  # one of two arms is off by two standard deviations
    for _ in range(rounds):
        found = error_of(drawn(generator, "normal", 2, 5, 2))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert held >= stats.binom.ppf(0.001, rounds, 0.92)


def test_errors_of_equal_size_are_known_exactly() -> None:
    before, now = of_size(0.03), of_size(0.01)
    assert before.rmse == pytest.approx(0.03)
    assert error_of(before).low == pytest.approx(0.03)  # every resample has the same
    found = change(before, now)
    assert found.value == pytest.approx(-0.02)
    assert found.high == pytest.approx(-0.02)
    assert verdict(found) == "fell"
    assert before.of("arm-1").rmse == pytest.approx(0.03)
    assert len(before.of("arm-1").errors) == 3


def test_of_one_finetune_each_nothing_is_known() -> None:
    before, now = errors(np.array([[0.03], [0.01]])), errors(np.array([[0.001], [0.002]]))
    found = change(before, now)
    assert found == Estimate(now.rmse - before.rmse)
    assert found.value < 0
    assert verdict(found) == "cannot_tell"
    assert error_of(before) == Estimate(before.rmse)


def test_the_interval_does_not_depend_on_the_order_of_the_sets() -> None:
    generator = np.random.Generator(np.random.PCG64(10))
    before = drawn(generator, "normal", 3, 4, 1)
    order = generator.permutation(12)
    mixed = Errors(before.errors[order], before.strategies[order])
    (a, b) = error_of(before), error_of(mixed)
    assert a.high is not None
    assert b.value == pytest.approx(a.value)
    assert b.high == pytest.approx(a.high)


@pytest.mark.parametrize(
    ("sizes", "goes_on", "why"),
    [
        ([], True, "the first two rounds are always made"),
        ([0.01], True, "the first two rounds are always made"),
        ([0.03, 0.02], True, "round 2, 0.02, is below that of round 1, 0.03"),
        ([0.02, 0.02], False, "round 2, 0.02, is not below that of round 1, 0.02"),
        ([0.02, 0.03], False, "round 2, 0.03, is not below that of round 1, 0.02"),
        ([0.03, 0.02, 0.025], False, "round 3, 0.025, is not below that of round 2, 0.02"),
        ([0.03, 0.04, None], False, "the rounds ended before round 3"),
        ([0.03, 0.04, None, None], False, "the rounds ended before round 3"),
        ([None], False, "the rounds ended before round 1"),
    ],
)
def test_a_round_is_made_while_the_error_falls(
    sizes: list[float | None], goes_on: bool, why: str
) -> None:
    found = decided([None if size is None else of_size(size) for size in sizes], rule("a"))
    assert found.goes_on == goes_on
    assert why in found.why


@pytest.mark.parametrize("sizes", [[], [0.03], [0.03, 0.02]])
def test_a_rule_without_an_indicator_selects_nothing(sizes: list[float]) -> None:
    found = decided([of_size(size) for size in sizes], rule())
    assert not found.goes_on
    assert "has no indicator" in found.why
