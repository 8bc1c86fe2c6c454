from lenet_exp.experiment import parse
from lenet_exp.jobs import fixed_jobs


def test_the_baseline_comes_first_and_all_begin_with_the_same_seed() -> None:
    """A list is compared with the baseline, so nothing but the configuration differs."""
    experiment = parse({"name": "e", "run": [{"pooling": "avg", "name": "mean"}, {"lr": 0.1}]})

    jobs = fixed_jobs(experiment)

    assert [(job.name, job.role, job.label) for job in jobs] == [
        ("baseline", "baseline", "baseline"),
        ("run 1", "run", "mean"),
        ("run 2", "run", "run 2"),
    ]
    assert len({job.seed for job in jobs}) == 1
    assert [job.configuration.pooling for job in jobs] == ["max", "avg", "max"]


def test_a_search_trains_the_baseline_too() -> None:
    """Without it there would be nothing to beat."""
    assert [job.role for job in fixed_jobs(parse({"name": "e", "space": {"lr": [0.1, 0.2]}}))] == ["baseline"]
