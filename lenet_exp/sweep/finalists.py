"""The plan of a confirmation: which configurations, on how many seeds, on which data set; and why none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from lenet_exp.base.errors import ConfigError, NoResultError
from lenet_exp.base.messages import counted
from lenet_exp.base.records import IMAGES_IN_WORDS, Role
from lenet_exp.base.seeding import derive_seed
from lenet_exp.config.experiment import FIRST_SEEDS, Experiment
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.results.champion import has_baseline
from lenet_exp.results.evaluation import PLAN, ConfirmationPlan, Evaluation, Finalist, FirstStage
from lenet_exp.results.verdicts.seeds import seeds_for_precision
from lenet_exp.results.verdicts.statistics import estimate
from lenet_exp.study.records import TrialRecord


def freeze(
    experiment: Experiment, finalists: Sequence[Finalist], n_finished: int, skipped: int = 0
) -> ConfirmationPlan:
    """Return the plan of a confirmation, which stays as it is even if trials or settings are added later.

    Args:
        experiment: Experiment whose precision is no longer ``auto``.
        finalists: Configurations to confirm, the best first.
        n_finished: Number of finished trials from which the finalists were chosen.
        skipped: Number of fresh seeds with which an earlier plan found its number of seeds. A given number
            is of other seeds, so that it adds to those that were read.
    """
    settings = experiment.confirm
    first_stage = None
    if settings.seeds == "auto":
        n_seeds, skipped = FIRST_SEEDS, 0
        first_stage = FirstStage(n_seeds, settings.precision, settings.max_seeds)
    else:
        n_seeds = settings.seeds
    return ConfirmationPlan(
        frozen=utc_now(),
        finalists=tuple(finalists),
        baseline=Finalist(experiment.baseline_configuration, "baseline", None),
        seeds=_fresh_seeds(experiment, skipped + n_seeds)[skipped:],
        train_on=settings.images,
        level=settings.level,
        n_finished=n_finished,
        first_stage=first_stage,
        skipped=skipped,
    )


def utc_now() -> str:
    """Return the time as records have it, such as ``2026-11-28T01:33:20Z``."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _fresh_seeds(experiment: Experiment, number: int) -> tuple[int, ...]:
    """Return the fresh seeds; a larger number adds seeds and keeps the others."""
    return tuple(derive_seed(experiment.search.seed, "confirm", n) for n in range(number))


def is_as_set(plan: ConfirmationPlan, experiment: Experiment) -> bool:
    """Return True if a confirmation that is planned now would have the same seeds, images and level.

    Args:
        plan: A stored plan.
        experiment: Experiment with the settings of now.
    """
    now = freeze(experiment, plan.finalists, plan.n_finished, plan.skipped)
    if (now.train_on, now.level) != (plan.train_on, plan.level):
        return False
    if now.first_stage is None or plan.first_stage is None:
        return (now.seeds, now.first_stage) == (plan.seeds, plan.first_stage)
    return now.first_stage == replace(plan.first_stage, spreads=None, n_wanted=0)


def second_stage(
    plan: ConfirmationPlan,
    values: Mapping[tuple[str, int], float | None],
    experiment: Experiment,
    level: float,
) -> ConfirmationPlan:
    """Return a plan with ``seeds = "auto"`` with the seeds to read on, once its first stage is trained.

    Args:
        plan: The plan with the seeds of its first stage.
        values: Validation accuracy by configuration hash and seed; None or absent where there is none.
        experiment: Experiment from which the fresh seeds are derived.
        level: Level of the reading to come.
    """
    first = plan.first_stage
    if first is None or first.spreads is not None:
        return plan
    spreads = {}
    for finalist in plan.finalists:
        pairs = [
            (values.get((finalist.config, seed)), values.get((plan.baseline.config, seed)))
            for seed in plan.seeds
        ]
        differences = [value - base for value, base in pairs if value is not None and base is not None]
        # A finalist that lacks a seed gets no verdict, so it does not decide for the others.
        is_whole = len(differences) == len(pairs) > 1
        spreads[finalist.config] = estimate(differences).sd if is_whole else None
    known = [spread for spread in spreads.values() if spread is not None]
    wanted = seeds_for_precision(known, first.n_seeds, first.precision, level / len(plan.finalists))
    return replace(
        plan,
        seeds=_fresh_seeds(experiment, first.n_seeds + min(wanted, first.max_seeds))[first.n_seeds :],
        first_stage=replace(first, spreads=spreads, n_wanted=wanted),
    )


def confirmation_trainings(plan: ConfirmationPlan, *, is_transferred: bool) -> list[FixedTraining]:
    """Return the trainings of a plan: every configuration on the first seed, then on the second, and so on.

    In this order an interrupted confirmation has trained all configurations on nearly the same seeds.

    Args:
        plan: The frozen plan.
        is_transferred: True if the finalists come from a search on another data set. The study then has
            nothing but the confirmation, so the leaderboard shows its trainings on the first seed.
    """
    trainings = []
    for number, seed in enumerate(plan.seeds, start=1 + plan.n_seeds_before):
        for finalist in plan.everyone:
            training = replace(
                confirmation_training(finalist, plan, seed), label=f"{finalist.label}, seed {number}"
            )
            if is_transferred and number == 1 + plan.skipped:
                role: Role = "baseline" if finalist == plan.baseline else "run"
                training = replace(training, role=role, label=finalist.label)
            trainings.append(training)
    return trainings


def confirmation_training(finalist: Finalist, plan: ConfirmationPlan, seed: int) -> FixedTraining:
    """Return the training of one finalist, or of the baseline, on one seed of a plan.

    Args:
        finalist: The configuration.
        plan: The plan that it is part of.
        seed: A fresh seed.
    """
    # The name does not depend on the plan, so that a later plan uses trainings that are done.
    name = f"confirm {finalist.config} on {plan.train_on}"
    return FixedTraining(name, "confirm", finalist.label, finalist.configuration, seed, plan.train_on)


def in_words(plan: ConfirmationPlan) -> str:
    """Return the plan in words, such as ``trial 3 against the baseline, 5 fresh seeds each``."""
    labels = ", ".join(finalist.label for finalist in plan.finalists)
    images = IMAGES_IN_WORDS[plan.train_on]
    first = plan.first_stage
    auto = " to see how they vary" if first and first.spreads is None else ""
    seeds = counted(len(plan.seeds), "fresh seed")
    return f"{labels} against the baseline, {seeds} each{auto}{images}"


def nothing_new_in_words(last: Evaluation) -> str:
    """Return why the networks of the last reading are not read again, and what to do instead."""
    # So a repeated confirmation that was interrupted after its reading is not punished for going on.
    return (
        f"not read again: reading {last.number} was of these networks already, and another would spend a part"
        " of the level to tell nothing new; ask for more seeds (confirm.seeds), or search on"
    )


def stages_in_words(plan: ConfirmationPlan) -> str:
    """Return how a plan with ``seeds = "auto"`` came to its number of seeds; empty if it was given."""
    first = plan.first_stage
    if first is None or first.spreads is None:
        return ""
    labels = {finalist.config: finalist.label for finalist in plan.finalists}
    spreads = ", ".join(
        f"{labels[config]} {'unknown' if spread is None else f'{spread:.4f}'}"
        for config, spread in first.spreads.items()
    )
    wanted = f"an interval of ±{first.precision:g} needs {counted(first.n_wanted, 'seed')}"
    if all(spread is None for spread in first.spreads.values()):
        wanted = f"nothing tells how many seeds an interval of ±{first.precision:g} needs"
    limit = "" if first.n_wanted <= first.max_seeds else f"; confirm.max_seeds allows {first.max_seeds}"
    return (
        f"standard deviation of the differences on validation images over {first.n_seeds} seeds: {spreads};"
        f" {wanted}{limit}"
    )


def best_finalists(records: Iterable[TrialRecord], baseline: str, top: int) -> list[Finalist]:
    """Return the best configurations by validation accuracy, each once, without the baseline.

    Args:
        records: Records of all roles; only complete trials and listed runs are considered.
        baseline: Hash of the baseline's configuration.
        top: Largest number of finalists to return.
    """
    by_config: dict[str, Finalist] = {}
    complete = [r for r in records if r.key.role in ("trial", "run") and r.value is not None]
    # Among equals the earliest comes first: it was trained, and its duplicates only have its value.
    for record in sorted(complete, key=lambda r: (-(r.value or 0.0), r.trial)):
        if record.config != baseline:
            finalist = Finalist(record.configuration, record.label, record.value)
            by_config.setdefault(record.config, finalist)
    return list(by_config.values())[:top]


def chosen(
    experiment: Experiment, source: Experiment, root: Path, storage: str | None = None
) -> Sequence[Finalist]:
    """Return the finalists of an experiment, the best first.

    Args:
        experiment: Experiment that confirms them. If it is ``source`` itself, the finalists are its best
            configurations; else they are those that ``source`` has confirmed, or would confirm.
        source: Experiment that was searched.
        root: Folder that holds all results.
        storage: URL of the PostgreSQL database that holds the studies; None for ``study.db`` in ``root``.
    """
    from lenet_exp.results.lookup import read_related

    study = read_related(source.name, root, storage)
    if study is None:
        return []
    top = experiment.confirm.top
    if experiment.name != source.name and (kept := study.kept.get(PLAN)):
        return ConfirmationPlan.from_dict(kept).finalists[:top]
    return best_finalists(study.records, experiment.baseline_configuration.id, top)


#: What to do about trainings that gave no network, by the kind of their end. What is needed for a verdict is
#: trained again by the next call, and what a limit ended once the limit is higher.
_IF_LIMITED = {
    "timeout": "raise --trial-timeout or leave it out, and run the sweep again: it then goes on with them",
    "oom": "raise --trial-memory or leave it out, and run the sweep again: it then tries them again",
}
_REMEDIES = {
    "timeout": "give more --trials",
    "oom": "narrow the [space] to smaller networks and rename the experiment (name = ...)",
    "diverged": "narrow the [space] and rename the experiment (name = ...)",
    "infeasible": "narrow the [space] and rename the experiment (name = ...)",
    "failed": "mend the cause and give more --trials, or rename the experiment (name = ...)",
    "pruned": "give more --trials",
}
_REMEDIES_IF_NEEDED = {
    "timeout": "run the same command again: it trains them again",
    "pruned": "run the same command again: it trains them again",
    "oom": "make more memory free, and run the same command again: it trains them again",
    "diverged": "change the [baseline] and rename the experiment (name = ...), as it would end alike",
    "infeasible": "change the [baseline] and rename the experiment (name = ...), as it would end alike",
    "failed": "mend the cause, and run the same command again: it trains them again",
}
#: Of a list or an ablation, which has neither trials nor a space; its trainings are known by what they train.
_REMEDIES_IF_LISTED = {
    "timeout": "rename the experiment (name = ...), which trains them again then",
    "oom": "change them to smaller networks in the file, and run the sweep again",
    "diverged": "change them in the file, and run the sweep again",
    "infeasible": "change them in the file, and run the sweep again",
    "failed": "mend the cause and rename the experiment (name = ...), which trains them again then",
    "pruned": "rename the experiment (name = ...), which trains them again then",
}


def explained(records: Sequence[TrialRecord], *, is_needed: bool = False) -> str:
    """Return how many trainings ended by what, the last reason, and what to do.

    Args:
        records: Records of trainings that are not complete.
        is_needed: True if no verdict is possible without them; the next call trains them again.

    Example:
        >>> explained([])
        'none has ended; run the same command again to go on'
    """
    if not records:
        return "none has ended; run the same command again to go on"
    kinds = Counter(record.kind for record in records)
    counts = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    to_do = "; ".join(dict.fromkeys(_remedy(record, is_needed=is_needed) for record in records))
    return f"{counts} (the last: {records[-1].label}, {records[-1].reason}); {to_do}"


def _remedy(record: TrialRecord, *, is_needed: bool) -> str:
    if record.limited:
        return _IF_LIMITED.get(record.kind, _IF_LIMITED["oom"])
    if is_needed or record.key.role == "baseline":
        return _REMEDIES_IF_NEEDED[record.kind]
    return (_REMEDIES if record.key.role == "trial" else _REMEDIES_IF_LISTED)[record.kind]


def missing_result(records: Iterable[TrialRecord]) -> str | None:
    """Return why a search gave no result that can be compared, and what to do; None if it did.

    Args:
        records: Records of all attempts of an experiment that have ended.
    """
    ended = [r for r in records if not r.superseded and r.key.role != "confirm"]
    others = [record for record in ended if record.key.role != "baseline"]
    if ended and all(record.state != "COMPLETE" for record in others or ended):
        name = "trial" if others and others[0].key.role == "trial" else "training"
        lacking = [record for record in ended if record.state != "COMPLETE"]
        is_alone = len(lacking) == len(ended)
        return f"{'nothing' if is_alone else f'no {name}'} completed: {explained(lacking)}"
    lacking = [r for r in ended if r.key.role == "baseline" and r.state != "COMPLETE"]
    if lacking:
        ends = explained(lacking, is_needed=True)
        return f"the baseline is not complete, so there is no verdict and no champion: {ends}"
    return None


def cut_short(records: Iterable[TrialRecord]) -> str | None:
    """Return how many trainings a limit of the sweep ended, and what to do; None if there are none.

    Args:
        records: Records of all attempts of an experiment that have ended.
    """
    limited = [record for record in records if record.limited and not record.superseded]
    return f"without a result, because of a limit: {explained(limited)}" if limited else None


def ensure_there_are_some(source: Experiment, root: Path, storage: str | None = None) -> None:
    """Raise an error unless the experiment has a configuration to confirm.

    Args:
        source: Experiment that was searched.
        root: Folder that holds all results.
        storage: URL of the PostgreSQL database that holds the studies; None for ``study.db`` in ``root``.

    Raises:
        ConfigError: If the experiment is an ablation.
        NoResultError: If the experiment was never run below ``root``, or has no complete trial or baseline.
    """
    from lenet_exp.results.lookup import read_related

    if source.ablate:
        raise ConfigError(
            f"{source.name!r} is an ablation, which is judged on validation images and has no finalists;"
            " list what you would confirm as [[run]] in a file with a [confirm]"
        )
    study = read_related(source.name, root, storage)
    if study is None:
        raise NoResultError(
            f"{source.name!r} was never run under {root}; run '{source.command('sweep', root)}'"
        )
    baseline = source.baseline_configuration.id
    if not best_finalists(study.records, baseline, 1) and not study.kept.get(PLAN):
        raise NoResultError(f"{source.name!r} has no finished trial to confirm; give the sweep more trials")
    if not has_baseline(study.records):
        raise NoResultError(
            f"the baseline of {source.name!r} is not complete, so there is nothing to confirm against;"
            f" run '{source.command('sweep', root)}', which trains it again or says why not"
        )


def on_dataset(experiment: Experiment, dataset: str | None, folder: str | None = None) -> Experiment:
    """Return the experiment itself, or the one that confirms its finalists on another data set.

    Args:
        experiment: Experiment that was searched.
        dataset: Name of the data set to confirm on; None for the experiment's own.
        folder: Folder with the files of ``dataset``; None if the user named none.

    Raises:
        ConfigError: If ``dataset`` is not a possible name of a data set.
    """
    if dataset is None or dataset == experiment.data.dataset:
        return experiment
    from lenet_exp.data.datasets import DATASETS

    # The experiment's own folder may hold a user's data sets, but not those that this package knows.
    default = None if dataset in DATASETS else experiment.data.folder
    try:
        return experiment.with_dataset(dataset, folder or default)
    except ValueError as error:
        raise ConfigError(f"--dataset {error}") from None
