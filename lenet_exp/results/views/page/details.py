"""The page's lists: what an experiment cost and searched, how it was measured, and with which versions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from lenet_exp.base.messages import counted
from lenet_exp.base.records import IMAGES_IN_WORDS
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import PER_LAYER, Configuration, split_key
from lenet_exp.config.space import SPACE_KEYS, Choice, Dimension, Fixed
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.study.records import TrialRecord

#: A list of names with their values.
Details = list[tuple[str, str]]
#: What trainings of each role are for.
_ROLES = {
    "baseline": "of the baseline",
    "trial": "of the search",
    "run": "of listed runs",
    "ablation": "of alternatives",
    "confirm": "of the confirmation",
}


def cost(results: ExperimentResults) -> Details:
    """Return what the experiment cost: trainings, time, images trained on, and the machine."""
    records = [r for r in results.records if "duplicate_of" not in r.result]
    roles = Counter(r.key.role for r in records)
    ended = Counter(r.kind for r in records)
    trained_s = math.fsum(r.result.get("train_s") or 0.0 for r in records)
    parts = ", ".join(f"{roles[role]:,} {whose}" for role, whose in _ROLES.items() if roles[role])
    ends = ", ".join(f"{n:,} {kind}" for kind, n in ended.most_common())
    details = [
        ("trainings", f"{len(records):,}: {parts}; {ends}" if records else "none has ended yet"),
        ("training time", f"{duration(trained_s)} of all trainings together, evaluation left out"),
    ]
    begin, end = _period(results)
    if begin and end > begin:
        times = [datetime.fromtimestamp(ms / 1000, UTC) for ms in (begin, end)]
        until = f"{times[1]:%H:%M}" if times[0].date() == times[1].date() else f"{times[1]:%Y-%m-%d %H:%M}"
        took = duration((end - begin) / 1000)
        details.append(("from first to last", f"{took}: {times[0]:%Y-%m-%d %H:%M} to {until} UTC"))
    n_epochs, n_images = sum(r.epochs for r in records), _n_training_images(results)
    if n_images and n_epochs:
        details.append(
            (
                "images trained on",
                f"about {n_images * n_epochs:,}: {counted(n_epochs, 'epoch')} of {n_images:,}",
            )
        )
    machine = distinct(records, "device") or distinct(records, "cpu")
    return [*details, ("machine", machine)] if machine else details


def _period(results: ExperimentResults) -> tuple[int, int]:
    """Return when the first attempt began and when the last one ended, in ms since 1970; 0 if unknown."""
    logs = results.run_logs.values()
    ends = (log.end.time_ms for log in logs if log.end)
    return min((log.start_ms for log in logs), default=0), max(ends, default=0)


def _n_training_images(results: ExperimentResults) -> int:
    """Return the number of images in an epoch, as a training's speed and time tell; 0 if unknown."""
    for record in results.records:
        log = results.run_logs.get(record.key)
        if record.train_on == "train" and log and log.epochs:
            first = log.epochs[0]
            n_images = first.examples_per_s * first.train_s
            return round(n_images) if first.epoch == 1 and math.isfinite(n_images) else 0
    return 0


def duration(seconds: float) -> str:
    """Return a time in its two largest units.

    Example:
        >>> duration(5.2), duration(754), duration(7_260)
        ('5.2 s', '12 min 34 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def distinct(records: Iterable[TrialRecord], name: str) -> str:
    """Return the different values that a measurement has, the most frequent first.

    Args:
        records: Records of attempts.
        name: Name of the measurement.
    """
    counts = Counter(str(r.result[name]) for r in records if r.result.get(name) not in (None, ""))
    return ", ".join(value for value, _ in counts.most_common())


def space(results: ExperimentResults) -> tuple[str, Sequence[tuple[str, str, str]]]:
    """Return the heading of what was varied, and for each hyper-parameter its values and the baseline's.

    What was not varied comes last, with ``fixed``.
    """
    experiment = results.experiment
    base = _base(results)
    written: dict[str, list[str]] = {}
    if experiment.space:
        heading, written = "searched", _searched(experiment)
    elif experiment.ablate:
        heading = "alternatives"
        for alternative, _ in experiment.alternatives():
            written.setdefault(alternative.factor, []).append(alternative.value)
    else:
        heading = "listed"
        for _, configuration in experiment.runs():
            for name, value in _values(configuration).items():
                if name != "precision" and value not in written.setdefault(name, []):
                    written[name].append(value)
        written = {name: values for name, values in written.items() if values != [base.get(name)]}
    rows = [(name, ", ".join(values), base.get(split_key(name)[0], "")) for name, values in written.items()]
    names = {split_key(name)[0] for name in written}
    fixed = [(name, "fixed", value) for name, value in base.items() if name not in names]
    return heading, [*rows, *fixed]


def differences(results: ExperimentResults, configuration: Configuration) -> str:
    """Return what distinguishes a configuration from the baseline, such as ``pooling avg, channels 8-32``.

    Args:
        results: Everything that the experiment has recorded.
        configuration: The configuration to compare with the baseline.
    """
    base = _base(results)
    return ", ".join(
        f"{name} {value}" for name, value in _values(configuration).items() if value != base.get(name)
    )


def _base(results: ExperimentResults) -> dict[str, str]:
    """Return the baseline's values: those that it was trained with, if it was."""
    trained = next((r.configuration for r in results.records if r.key.role == "baseline"), None)
    return _values(trained or results.experiment.baseline_configuration)


def _values(configuration: Configuration) -> dict[str, str]:
    """Return the values that a configuration uses as texts, those of layers as ``6-16``."""
    layers: dict[str, list[str]] = {}
    for key, value in configuration.to_dict().items():
        if value is not None:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            layers.setdefault(split_key(key)[0], []).append(text)
    return {name: "-".join(values) for name, values in layers.items()}


def _searched(experiment: Experiment) -> dict[str, list[str]]:
    dimensions = experiment.search_space.dimensions
    return {
        name: [
            _in_words(dimensions[name]) + (" (drawn for each layer)" if _is_drawn(name, dimensions) else "")
        ]
        for name in SPACE_KEYS
        if name in dimensions
    }


def _is_drawn(name: str, dimensions: Mapping[str, Dimension]) -> bool:
    return name in PER_LAYER and not isinstance(dimensions[name], Fixed)


def _in_words(dimension: Dimension) -> str:
    if isinstance(dimension, Fixed):
        return f"{dimension.value} in all trials"
    if isinstance(dimension, Choice):
        return " or ".join(map(str, dimension.options))
    steps = f", in steps of {dimension.step:g}" if dimension.step else ""
    kind = ", whole numbers" if dimension.whole and not dimension.step else ""
    return f"{dimension.low:g} to {dimension.high:g}{', logarithmic' if dimension.log else ''}{kind}{steps}"


def measurement(results: ExperimentResults) -> Details:
    """Return how it was measured: images and who saw which, objective, seeds, level, and the arithmetic."""
    experiment, records = results.experiment, results.records
    data, n_train = experiment.data, _n_training_images(results)
    evaluation = results.confirmation.evaluation
    split = (
        f"{data.dataset}: {f'{n_train:,} to train on, ' if n_train else ''}{data.validation:,} to validate on"
    )
    details = [
        ("images", f"{split}, {data.resize} pixels wide; each class has its share in both"),
        ("objective", str(results.fingerprint.get("objective", "val_accuracy after the last epoch"))),
        (
            "who saw what",
            "training images are seen in every epoch. Validation images are seen after every epoch, and"
            f" {'choose nothing' if experiment.run else 'decide what is best'}. {_test_images(results)}",
        ),
    ]
    if experiment.space:
        search = experiment.search
        details.append(
            (
                "search",
                f"{search.sampler} with pruner {search.pruner}, {experiment.trials:,} trials asked for",
            )
        )
    details.append(("seeds", _seeds(results)))
    if evaluation:
        plan = evaluation.plan
        level = f"{plan.level:g} over all readings of the test split, {evaluation.level:.3g} in this one"
        details.append(("level", level))
    details += [
        ("precision", ", ".join(sorted({str(r.values["precision"]) for r in records}))),
        ("threads", distinct(records, "threads")),
        ("trainings side by side", _side_by_side(results)),
        ("device", distinct(records, "device_type")),
    ]
    return [(name, value) for name, value in details if value]


def _side_by_side(results: ExperimentResults) -> str:
    """Return how many trainings ran at once; empty if unknown."""
    beside = [int(n) for r in results.records if (n := r.result.get("co_runners")) is not None]
    most = max(beside, default=-1)
    return f"up to {most + 1}" if most > 0 else "none, each ran alone" if beside else ""


def _test_images(results: ExperimentResults) -> str:
    """Return the sentence that says when the test images were seen."""
    evaluation = results.confirmation.evaluation
    if results.experiment.watch.test_split:
        return "Test images are seen after every epoch, as a list chooses nothing."
    if not evaluation:
        return "Test images have not been looked at."
    times = f", reading {evaluation.number}" if evaluation.number > 1 else ""
    return (
        f"The {evaluation.n_images:,} test images of {evaluation.dataset} were seen only when all networks of"
        f" the confirmation were trained{times} ({evaluation.completed})."
    )


def _seeds(results: ExperimentResults) -> str:
    experiment, evaluation = results.experiment, results.confirmation.evaluation
    if experiment.space:
        text = f"each trial has a seed of its own, drawn from {experiment.search.seed}"
    else:
        text = f"{counted(experiment.seeds, 'seed')}, the same for all"
    if evaluation:
        plan = evaluation.plan
        text += f"; the confirmation has {counted(len(plan.seeds), 'fresh seed')}, the same for all"
        text += IMAGES_IN_WORDS[plan.train_on]
    return text


def versions(results: ExperimentResults) -> Details:
    """Return the versions that the trainings recorded."""
    names = ("lenet_exp", "code", "torch", "optuna", "mlflow", "numpy", "python", "system", "cpu", "kernels")
    return [(name, value) for name in names if (value := distinct(results.records, name))]
