"""What the page says first: what won, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lenet_exp.base.messages import counted
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.results.ablation import ablation_table
from lenet_exp.results.conclusion import error_chance
from lenet_exp.results.evaluation import Evaluation
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.results.views.console import row_label
from lenet_exp.results.views.page.details import differences
from lenet_exp.results.views.page.shareable import shared_file
from lenet_exp.study.trials import counts


@dataclass(frozen=True)
class Answer:
    """The result of an experiment in words.

    Attributes:
        verdict: The winner and its lead, in one sentence.
        sentences: Winner in words, certainty of the verdict; a colon ends what each is about.
        next_steps: Advice on how to go on, with commands, in the same form.
        in_full: The conclusion's own sentences, for those who want to know more.
    """

    verdict: str
    sentences: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()
    in_full: tuple[str, ...] = ()


def answer_of(results: ExperimentResults) -> Answer:
    """Return the result of an experiment: of its last confirmation, if it has any."""
    summary = results.confirmation
    if summary.evaluation and summary.sentences:
        # The last sentence names the champion, as the verdict does.
        *in_full, champion = summary.sentences
        steps = tuple(f"next: {step}" for step in summary.next_steps)
        if not summary.evaluation.verdicts or not summary.evaluation.has_baseline:
            return Answer(champion, (), steps, tuple(in_full))
        told, verdict = _confirmed(summary.evaluation)
        finalist = next(f for f in summary.evaluation.plan.everyone if f.config == told["config"])
        what = _what_it_is(results, finalist.configuration, finalist.label)
        sentences = what, _how_sure(summary.evaluation, told)
        return Answer(verdict, sentences, steps, tuple(in_full))
    return _ablated(results) if results.experiment.ablate else _unconfirmed(results)


def _confirmed(evaluation: Evaluation) -> tuple[Mapping[str, Any], str]:
    """Return the verdict that a confirmation's outcome rests on, and the outcome in one sentence."""
    label, judged = evaluation.label, evaluation.verdicts
    by_outcome = {
        outcome: [verdict for verdict in judged if verdict["verdict"] == outcome]
        for outcome in ("better", "tie", "worse")
    }
    if evaluation.champion != evaluation.plan.baseline.config:
        told = next(verdict for verdict in judged if verdict["config"] == evaluation.champion)
        others = [label(verdict["config"]) for verdict in by_outcome["better"] if verdict is not told]
        text = f"{label(evaluation.champion)} is better than the baseline: {_accuracies(told)}"
        text += f"; {_and(others)} {'is' if len(others) == 1 else 'are'} better too" if others else ""
        return told, f"{text}."
    told = max(by_outcome["tie"] or judged, key=_delta)
    name, n = label(told["config"]), len(judged)
    nearest = f"; the nearest is {name}" if n > 1 else ""
    if by_outcome["tie"]:
        none = f"none of {n} finalists" if n > 1 else f"{name} is not"
        text = f"Undecided: {none}{' is' if n > 1 else ''} shown to be better than the baseline,"
        text += f" which stays champion{nearest}"
    else:
        text = f"The baseline wins: {f'all {n} finalists are' if n > 1 else f'{name} is'} worse{nearest}"
    return told, f"{text} ({_accuracies(told)})."


def _accuracies(verdict: Mapping[str, Any]) -> str:
    """Return a finalist's test accuracy and the baseline's, and their difference."""
    if verdict["delta"] is None:
        return "no test accuracies to compare"
    mean, baseline, delta = verdict["mean"], verdict["baseline_mean"], verdict["delta"]
    return f"test accuracy {mean:.4f} against {baseline:.4f}, {delta:+.4f}"


def _delta(verdict: Mapping[str, Any]) -> float:
    return -1.0 if verdict["delta"] is None else float(verdict["delta"])


def _how_sure(evaluation: Evaluation, verdict: Mapping[str, Any]) -> str:
    """Return how far a verdict can be relied on.

    Args:
        evaluation: The evaluation with its verdicts.
        verdict: The verdict that the outcome tells.
    """
    low, high, p = (verdict.get(name) for name in ("delta_low", "delta_high", "p_value"))
    seeds = counted(verdict["n_seeds"], "seed")
    about = f"{seeds}, p {'< 0.0001' if p < 0.0001 else f'{p:.2g}'}" if p is not None else seeds
    images = f"the {evaluation.n_images:,} test images of {evaluation.dataset}"
    if low is None or high is None:
        text = f"how sure: measured on {images} ({about})"
    else:
        text = f"how sure: on {images} the true difference lies between {low:+.4f} and {high:+.4f} ({about})"
    if verdict["verdict"] == "tie":
        return f"{text}. Other seeds may turn it round."
    text += f". The chance of a wrong verdict is at most {error_chance(evaluation):.3g}"
    other_low = verdict.get("delta_low_other_images")
    is_open = verdict["verdict"] == "better" and other_low is not None and other_low <= 0
    return f"{text}; on other images like these it is open." if is_open else f"{text}."


def _unconfirmed(results: ExperimentResults) -> Answer:
    """Return the best so far of a search or a list, and what that is worth."""
    rows = results.leaderboard.plain_rows()
    ranked = [row for row in rows if row["rank"] is not None and row["val_accuracy"] is not None]
    baseline = next((row for row in ranked if row["role"] == "baseline"), None)
    best = next((row for row in ranked if row["role"] != "baseline"), None)
    if best is None:
        step = f"next: 'lenet-exp sweep {shared_file(results.experiment)}'"
        return Answer("No trial or listed run is complete yet.", next_steps=(step,))
    is_list = bool(results.experiment.run)
    name = row_label(best)
    text = f"{'Of the list, the best is' if is_list else 'The best so far is'} {name}"
    text += f" with validation accuracy {best['val_accuracy']:.4f}"
    configuration = next(r.configuration for r in results.records if r.config == best["config"])
    what = _what_it_is(results, configuration, name)
    if baseline is None:
        return Answer(f"{text}; the baseline is not complete.", (what,))
    delta = best["val_accuracy"] - baseline["val_accuracy"]
    side = "above" if delta > 0 else "below" if delta < 0 else "from"
    text += f", {abs(delta):.4f} {side} the baseline's {baseline['val_accuracy']:.4f}."
    if is_list and not results.experiment.is_confirmed:
        n_seeds = best["n_seeds"] or 1
        sure = (
            f"how sure: it rests on {counted(n_seeds, 'seed')} each; other seeds may rank them differently."
        )
        return Answer(text, (what, sure))
    luck = "how sure: this is not confirmed, and the best of many owes some of its lead to luck."
    experiment, n_ended = results.experiment, sum(map(counts, results.records))
    file = shared_file(experiment)
    if n_ended >= experiment.trials:
        return Answer(text, (what, luck), (f"next: 'lenet-exp confirm {file}'",))
    far = f"how far: {n_ended:,} of {counted(experiment.trials, 'trial')} have ended."
    step = f"next: 'lenet-exp sweep {file}' trains the others, then confirms the best"
    return Answer(text, (what, luck, far), (step,))


def _what_it_is(results: ExperimentResults, configuration: Configuration, name: str) -> str:
    """Return what distinguishes a configuration from the baseline; its size and speed beside the baseline's.

    Args:
        results: Everything that the experiment has recorded.
        configuration: The configuration.
        name: Name that it has on the page.
    """
    differs = differences(results, configuration)
    text = f"what it is: {name} has {f'{differs}, else' if differs else 'just'} the baseline's values"
    rows = results.leaderboard.plain_rows()
    row = next((row for row in rows if row["config"] == configuration.id), {})
    baseline = next((row for row in rows if row["role"] == "baseline"), {})
    costs = [
        f"{row[column]:,.0f} {unit} (baseline {baseline[column]:,.0f})"
        for column, unit in (("n_parameters", "parameters"), ("examples_per_s", "training examples/s"))
        if row.get(column) and baseline.get(column)
    ]
    return "; ".join([text, *costs]) + "."


def _ablated(results: ExperimentResults) -> Answer:
    """Return which alternatives of an ablation are better or worse than the baseline, and how sure it is."""
    rows = [row for row in ablation_table(results.experiment, results.records).plain_rows() if row["verdict"]]
    if not rows:
        n_trained = sum(record.key.role == "ablation" for record in results.records)
        hint = f"how far: {counted(n_trained, 'training')} of alternatives ended; if the sweep had '--set',"
        hints = (f"{hint} so must 'lenet-exp report'.",) if n_trained else ()
        return Answer("No alternative has a verdict yet.", hints)
    rows.sort(key=lambda row: -abs(row["val_delta"] or 0))
    told = [row for row in rows if row["verdict"] != "tie"] or rows[:1]
    sentences = []
    for outcome in ("better", "worse"):
        if decided := [_with_delta(row) for row in told if row["verdict"] == outcome]:
            sentences.append(f"{_and(decided)} {'is' if len(decided) == 1 else 'are'} {outcome}")
    ties = sum(row["verdict"] == "tie" for row in rows)
    text = "; ".join(sentences) or "No alternative is shown to be better or worse"
    text += " than the baseline in mean validation accuracy"
    if not sentences:
        text += f"; the largest difference is that of {_with_delta(rows[0])}"
    elif ties:
        text += f"; {ties} of {len(rows)} {'is a tie' if ties == 1 else 'are ties'}"
    n_seeds = counted(results.experiment.seeds, "seed")
    intervals = ", ".join(filter(None, map(_interval, told)))
    sure = (
        f"how sure: with {n_seeds} each, all true differences lie within their intervals with a chance of"
        f" 0.95{f' ({intervals})' if intervals else ''}, and p is corrected for all alternatives. They are"
        " about other seeds on these images."
    )
    return Answer(f"{text}.", (sure,))


def _with_delta(row: Mapping[str, Any]) -> str:
    """Return an alternative with its difference from the baseline."""
    delta = "" if row["val_delta"] is None else f" ({row['val_delta']:+.4f})"
    return f"{row['factor']} {row['value']}{delta}"


def _interval(row: Mapping[str, Any]) -> str:
    """Return an alternative with the interval of its true difference; empty if that is unknown."""
    ends = row["val_delta_low"], row["val_delta_high"]
    return "" if None in ends else f"{row['factor']} {row['value']} [{ends[0]:+.4f}, {ends[1]:+.4f}]"


def _and(names: list[str]) -> str:
    """Return names as one text: the last two are joined by *and*."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
