"""Verdicts: which finalists are better than the baseline, by how much, and how sure that is.

A finalist and the baseline are trained on the same seeds, so that each seed gives one difference. The
two-sided paired t-test decides, after Holm's correction over the finalists; the other tests are reported
beside it and decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from lenet_exp.base.messages import counted
from lenet_exp.results.verdicts.statistics import (
    Bools,
    Floats,
    Paired,
    estimate,
    holm,
    mcnemar,
    other_images_interval,
    paired,
    sign_flip_test,
)

#: How a finalist compares with the baseline; a *tie* means that the seeds do not tell them apart.
Outcome = Literal["better", "worse", "tie"]


@dataclass(frozen=True)
class Sample:
    """The accuracies of one configuration, one for each seed.

    Attributes:
        config: The configuration's hash.
        test_accuracy: Accuracy on the test split for each seed, in [0, 1]; NaN for a seed whose training gave
            no network. In an ablation these are validation accuracies.
        seeds: Seeds of the trainings, all different, in the order of ``test_accuracy``.
        correct: ``(n_seeds, n_images)``, True where a test image was classified correctly; None if the
            predictions were not stored.

    Raises:
        ValueError: If the lengths differ, or a seed occurs twice.
    """

    config: str
    test_accuracy: tuple[float, ...]
    seeds: tuple[int, ...]
    correct: Bools | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.test_accuracy) != len(self.seeds) or len(set(self.seeds)) != len(self.seeds):
            seeds = ", ".join(map(str, self.seeds))
            raise ValueError(
                f"{self.config}: there must be one accuracy for each seed, and no seed twice;"
                f" found {len(self.test_accuracy)} accuracies for seeds {seeds}"
            )
        if self.correct is not None and self.correct.shape[:-1] != (len(self.seeds),):
            raise ValueError(
                f"{self.config}: correct must have the shape ({len(self.seeds)}, n_images),"
                f" found shape {self.correct.shape}"
            )


@dataclass(frozen=True)
class Settled:
    """An earlier reading's verdict on a finalist that was no tie.

    Attributes:
        verdict: ``better`` or ``worse``.
        reading: Number of the reading that reached it first.
        level: Level of that reading.
    """

    verdict: Outcome
    reading: int
    level: float


@dataclass(frozen=True)
class Verdict:
    """The comparison of one finalist with the baseline on the seeds that both have; unknown numbers are NaN.

    Attributes:
        config: The finalist's hash.
        n_seeds: Number of seeds that both were trained on; other seeds are left out.
        mean: The finalist's mean test accuracy on these seeds.
        sem: Standard error of ``mean``.
        baseline_mean: The baseline's mean test accuracy on the same seeds.
        delta: Difference from the baseline, ``mean - baseline_mean``.
        delta_sd: Standard deviation of the paired differences.
        delta_low: Lower end of the interval of ``delta`` for other seeds on these test images. The intervals
            of all finalists together have coverage 1 - level (Bonferroni). Holm's test is a little sharper:
            where it decides and the interval still reaches past 0, that end is moved to 0. So *better* never
            has ``delta_low < 0``, *worse* never ``delta_high > 0``, and the interval of a *tie* contains 0.
            The chance that any interval or verdict is wrong is at most twice the level. Also NaN if the
            difference is the same for every seed and there are too few seeds to decide.
        delta_high: Upper end of the interval of ``delta``; see ``delta_low``.
        delta_low_other_images: Lower end of the interval for other seeds and other images like these, see
            `lenet_exp.results.verdicts.statistics.other_images_interval`; NaN if predictions are missing.
        delta_high_other_images: Upper end of that interval.
        p_value: The p of the two-sided paired t-test, Holm-adjusted over the finalists that are judged at the
            same level; it decides.
        level: Level at which the finalist is judged.
        permutation_p: The p of the sign-flip test of this finalist alone, unadjusted; it cannot be below
            2**(1 - n_seeds).
        mcnemar_p: The p of McNemar's test of this finalist alone, unadjusted. It asks about these networks on
            other images, where the t-test asks about other seeds.
        verdict: ``better``, ``worse`` or ``tie``.
        settled_by: Number of the earlier reading that reached this verdict; None if this reading reached it.
        sentence: The verdict in plain words, as users see it.
    """

    config: str
    n_seeds: int
    mean: float
    sem: float
    baseline_mean: float
    delta: float
    delta_sd: float
    delta_low: float
    delta_high: float
    delta_low_other_images: float
    delta_high_other_images: float
    p_value: float
    level: float
    permutation_p: float
    mcnemar_p: float
    verdict: Outcome
    settled_by: int | None
    sentence: str


def verdicts(
    finalists: Sequence[Sample],
    baseline: Sample,
    level: float = 0.05,
    settled: Mapping[str, Settled] | None = None,
) -> list[Verdict]:
    """Return the verdict on each finalist, in their order.

    A finalist that an earlier reading has settled is not tested anew, which would make a verdict harder to
    keep the more seeds there are. It is only checked, at the level of that reading: the verdict stands as
    long as the test on these seeds still rejects, and else is withdrawn. The others are tested at ``level``,
    with Holm's correction for their number.

    Args:
        finalists: Accuracies of every configuration that is compared; leaving some out makes Holm's
            correction too weak.
        baseline: Accuracies of the configuration that all are compared with, on the same seeds.
        level: Largest accepted chance that any finalist which is not settled is called *better* or *worse*
            although none differs from the baseline, in (0, 1).
        settled: Verdicts of earlier readings that stand, by the finalist's hash; None if there are none.

    Example:
        >>> baseline = Sample("a", (0.891, 0.896, 0.893, 0.894, 0.890), (1, 2, 3, 4, 5))
        >>> finalist = Sample("b", (0.902, 0.910, 0.903, 0.907, 0.902), (1, 2, 3, 4, 5))
        >>> print(verdicts([finalist], baseline)[0].sentence.partition(", p")[0])
        better: +0.0120 [+0.0100, +0.0140] in mean test accuracy over 5 paired seeds
    """
    known = settled or {}
    families: dict[tuple[int | None, float], list[int]] = {}
    for position, finalist in enumerate(finalists):
        earlier = known.get(finalist.config)
        family = (earlier.reading, earlier.level) if earlier else (None, level)
        families.setdefault(family, []).append(position)
    judged: dict[int, Verdict] = {}
    for (reading, family_level), positions in families.items():
        pairs = [_Pair.of(finalists[position], baseline) for position in positions]
        # The settled ones were the lucky ones of all that were tested, so their intervals allow for all.
        joint_level = family_level / len(pairs if reading is None else finalists)
        differences = [paired(pair.finalist - pair.baseline, joint_level) for pair in pairs]
        p_values = holm([difference.p_value for difference in differences]).tolist()
        for position, pair, difference, p_value in zip(positions, pairs, differences, p_values, strict=True):
            verdict = _verdict(pair, difference, p_value, family_level, joint_level)
            judged[position] = _with_history(verdict, pair, len(pairs), known.get(pair.config))
    return [judged[position] for position in sorted(judged)]


@dataclass(frozen=True)
class _Pair:
    """The accuracies of a finalist and of the baseline on the seeds that both have, in the same order.

    Attributes:
        config: The finalist's hash.
        finalist: The finalist's accuracy for each shared seed.
        baseline: The baseline's accuracy for each shared seed.
        correct: Test images that each network classifies correctly, the baseline's first; None if
            predictions are missing.
    """

    config: str
    finalist: Floats
    baseline: Floats
    correct: tuple[Bools, Bools] | None

    @classmethod
    def of(cls, finalist: Sample, baseline: Sample) -> _Pair:
        shared = sorted(set(finalist.seeds) & set(baseline.seeds))
        rows, baseline_rows = (
            [sample.seeds.index(seed) for seed in shared] for sample in (finalist, baseline)
        )
        correct = None
        if shared and finalist.correct is not None and baseline.correct is not None:
            correct = baseline.correct[baseline_rows], finalist.correct[rows]
        return cls(
            finalist.config,
            np.asarray([finalist.test_accuracy[row] for row in rows], float),
            np.asarray([baseline.test_accuracy[row] for row in baseline_rows], float),
            correct,
        )

    @property
    def n_missing(self) -> int:
        """Number of shared seeds on which either side has no test accuracy."""
        return int((~np.isfinite(self.finalist) | ~np.isfinite(self.baseline)).sum())


def _verdict(pair: _Pair, difference: Paired, p_value: float, level: float, joint_level: float) -> Verdict:
    """Return the verdict on one finalist, still without its sentence.

    Args:
        pair: The accuracies of the finalist and of the baseline.
        difference: Mean difference of the two, with its interval at ``joint_level``.
        p_value: The p of ``difference``, Holm-adjusted over all finalists of the same level.
        level: Largest accepted chance of a wrong *better* or *worse* among these finalists.
        joint_level: Level of each interval: ``level`` divided by their number (Bonferroni).
    """
    outcome: Outcome = "tie"
    if p_value <= level:
        outcome = "better" if difference.mean > 0 else "worse"
    low, high = difference.low, difference.high
    if outcome == "better" and low < 0:
        low = 0.0
    if outcome == "worse" and high > 0:
        high = 0.0
    others = math.nan, math.nan
    # Where nobody can tell how seeds vary, nobody can tell for other images either.
    if pair.correct is not None and math.isfinite(low):
        others = other_images_interval(*pair.correct, joint_level)
    finalist = estimate(pair.finalist, level)
    return Verdict(
        config=pair.config,
        n_seeds=difference.n,
        mean=finalist.mean,
        sem=finalist.sem,
        baseline_mean=estimate(pair.baseline, level).mean,
        delta=difference.mean,
        delta_sd=difference.sd,
        delta_low=low,
        delta_high=high,
        delta_low_other_images=others[0],
        delta_high_other_images=others[1],
        p_value=p_value,
        level=level,
        permutation_p=sign_flip_test(pair.finalist - pair.baseline),
        mcnemar_p=math.nan if pair.correct is None else mcnemar(*pair.correct),
        verdict=outcome,
        settled_by=None,
        sentence="",
    )


def _with_history(verdict: Verdict, pair: _Pair, n_judged: int, earlier: Settled | None) -> Verdict:
    """Return a verdict with its sentence, which says what an earlier reading had found.

    Args:
        verdict: All of it but the sentence.
        pair: The accuracies of the finalist and of the baseline.
        n_judged: Number of finalists that are judged at the same level.
        earlier: Verdict of an earlier reading that stands; None if there is none.
    """
    corrected = f"corrected for {counted(n_judged, 'finalist')}; " if n_judged > 1 else ""
    rule = f"({corrected}at most {verdict.level:.3g} is needed"
    if earlier:
        rule += f", the level of reading {earlier.reading}"
    stands = earlier is not None and verdict.verdict == earlier.verdict
    sentence = _sentence(verdict, pair.n_missing, f"{rule}{', which settled it' if stands else ''})")
    if earlier and not stands:
        checked = "is not checked here" if math.isnan(verdict.p_value) else "these seeds do not confirm"
        sentence += f"; reading {earlier.reading} called it {earlier.verdict}, which {checked}"
    return replace(verdict, settled_by=earlier.reading if earlier and stands else None, sentence=sentence)


def _sentence(verdict: Verdict, n_missing: int, rule: str) -> str:
    """Return a verdict in plain words.

    Args:
        verdict: All of it but the sentence.
        n_missing: Number of shared seeds on which either side has no test accuracy.
        rule: Words on which p decides.
    """
    n = verdict.n_seeds
    if n == 0:
        return "tie: not tested, as no seed is shared with the baseline; train both on the same seeds"
    if n_missing:
        return f"tie: not tested, as {n_missing} of {n} paired seeds have no test accuracy"
    low, high = verdict.delta_low, verdict.delta_high
    outcome = "tie: undecided," if verdict.verdict == "tie" else f"{verdict.verdict}:"
    difference = f"{_signed(verdict.delta)}{_ends(low, high)} in mean test accuracy"
    if n == 1:
        return f"{outcome} {difference} on 1 paired seed, too few to see how seeds vary"
    sentence = f"{outcome} {difference} over {n} paired seeds, {_p_text(verdict.p_value)} {rule}"
    if not math.isfinite(low):
        return f"{sentence}; the difference is the same on every seed, so nothing shows how seeds vary"
    if low == high == 0:
        return f"{sentence}; the accuracy is the baseline's on every seed"
    if verdict.verdict == "tie" and max(-low, high) >= 1:
        return f"{sentence}; so few seeds exclude no difference"
    others = verdict.delta_low_other_images, verdict.delta_high_other_images
    if verdict.verdict == "tie":
        sentence += f"; if there is a difference, it is between {_between(low, high)}"
    if not math.isfinite(others[0]):
        return sentence
    if _ends(*others) == _ends(low, high):
        return f"{sentence}; the same on other images like these"
    if verdict.verdict == "tie":
        return f"{sentence}; on other images like these between {_between(*others)}"
    is_open = others[0] <= 0 <= others[1]
    return (
        f"{sentence}; on other images like these{_ends(*others)}{', so there it is open' if is_open else ''}"
    )


def _ends(low: float, high: float) -> str:
    return f" [{_signed(low)}, {_signed(high)}]" if math.isfinite(low) else ""


def _between(low: float, high: float) -> str:
    """Return the ends of a tie's interval, which contains 0."""
    return f"{abs(low):.4f} worse and {abs(high):.4f} better"


def _signed(difference: float) -> str:
    """Return a difference with its sign; with an exponent if it would look like 0."""
    rounded = round(difference, 4)
    return f"{difference:+.0e}" if rounded == 0 and abs(difference) > 1e-9 else f"{rounded + 0.0:+.4f}"


def _p_text(p_value: float) -> str:
    return "p < 0.0001" if p_value < 0.0001 else f"p {p_value:.4f}" if p_value < 0.1 else f"p {p_value:.2f}"


def winners_curse(
    search_val_accuracy: float, fresh_val_accuracies: Sequence[float], level: float = 0.05
) -> str:
    """Return a sentence on how much better a configuration looked in the search than on fresh seeds.

    The best of many noisy trials owes some of its accuracy to luck, which fresh seeds do not repeat.

    Args:
        search_val_accuracy: Validation accuracy by which the search chose the configuration.
        fresh_val_accuracies: Validation accuracies of the same configuration on seeds that the search did not
            use.
        level: One minus the coverage of the interval, in (0, 1).

    Example:
        >>> print(winners_curse(0.9210, [0.9150, 0.9172, 0.9164]).partition(": ")[2])
        the search flattered it by +0.0048 [+0.0020, +0.0076]
    """
    fresh = estimate(fresh_val_accuracies, level)
    searched = f"val_accuracy {search_val_accuracy:.4f} in the search"
    if not math.isfinite(fresh.mean):
        return f"{searched}, unknown on fresh seeds"
    optimism, low, high = (search_val_accuracy - end for end in (fresh.mean, fresh.high, fresh.low))
    seeds = counted(fresh.n, "fresh seed")
    effect = "the search flattered it by" if optimism > 0 else "the search did not flatter it:"
    return f"{searched}, {fresh.mean:.4f} on {seeds}: {effect} {_signed(optimism)}{_ends(low, high)}"
