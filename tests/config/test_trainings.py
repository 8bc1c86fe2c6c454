from lenet_exp.config.loader import parse
from lenet_exp.config.trainings import fixed_trainings


def test_the_baseline_comes_first_and_all_begin_with_the_same_seed() -> None:
    """A list is compared with the baseline, so nothing but the configuration differs."""
    experiment = parse({"name": "e", "run": [{"pooling": "avg", "name": "mean"}, {"lr": 0.1}]})

    trainings = fixed_trainings(experiment)

    assert [(training.role, training.label) for training in trainings] == [
        ("baseline", "baseline"),
        ("run", "mean"),
        ("run", "run 2"),
    ]
    assert len({training.seed for training in trainings}) == 1
    assert [training.configuration.pooling for training in trainings] == ["max", "avg", "max"]


def test_a_search_trains_the_baseline_too() -> None:
    """Without it there would be nothing to beat."""
    assert [
        training.role for training in fixed_trainings(parse({"name": "e", "space": {"lr": [0.1, 0.2]}}))
    ] == ["baseline"]


def test_an_ablation_changes_one_factor_at_a_time_on_paired_seeds() -> None:
    """Seed by seed the baseline and every alternative, so that a table cut off is cut off evenly."""
    experiment = parse({"name": "e", "ablate": {"seeds": 2, "pooling": ["avg"], "epochs": [20]}})

    trainings = fixed_trainings(experiment)

    assert [training.label for training in trainings] == [
        "baseline, seed 1",
        "pooling avg, seed 1",
        "epochs 20, seed 1",
        "baseline, seed 2",
        "pooling avg, seed 2",
        "epochs 20, seed 2",
    ]
    assert [training.role for training in trainings[:3]] == ["baseline", "ablation", "ablation"]
    assert [
        (training.configuration.pooling, training.configuration.epochs) for training in trainings[:3]
    ] == [("max", 10), ("avg", 10), ("max", 20)]
    assert (
        len({training.seed for training in trainings[:3]})
        == len({training.seed for training in trainings[3:]})
        == 1
    )
    assert trainings[0].seed != trainings[3].seed
    assert len({(training.name, training.seed) for training in trainings}) == 6


def test_more_seeds_begin_with_the_same_ones() -> None:
    """What was trained on three is not trained again for five."""
    few, many = (
        [
            (training.name, training.seed)
            for training in fixed_trainings(parse({"name": "e", "ablate": table}))
        ]
        for table in ({"seeds": 3, "lr": [0.1]}, {"seeds": 5, "lr": [0.1]})
    )

    assert many[: len(few)] == few


def test_each_run_of_a_list_can_have_its_own_number_of_seeds() -> None:
    """The baseline has as many as the most of them."""
    experiment = parse({"name": "e", "run": [{"lr": 0.1, "seeds": 3, "name": "a"}, {"lr": 0.2, "name": "b"}]})

    labels = [training.label for training in fixed_trainings(experiment)]

    assert labels == [
        "baseline, seed 1",
        "a, seed 1",
        "b",
        "baseline, seed 2",
        "a, seed 2",
        "baseline, seed 3",
        "a, seed 3",
    ]


def test_a_training_is_named_by_what_it_is() -> None:
    """A line of the file that is changed is another training, one that is moved is the same."""
    first, moved, changed = (
        {training.name for training in fixed_trainings(parse({"name": "e", "run": runs}))}
        for runs in ([{"lr": 0.1}, {"lr": 0.2}], [{"lr": 0.2}, {"lr": 0.1}], [{"lr": 0.1}, {"lr": 0.3}])
    )

    assert first == moved
    assert len(first & changed) == 2
