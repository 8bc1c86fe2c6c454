import warnings

from lenet_exp.base.records import METRICS, EpochResult, RunKey
from lenet_exp.results.views.curves import curves_picture, curves_table
from lenet_exp.tracking.events import End, RunLog

PNG = b"\x89PNG\r\n\x1a\n"


def attempt(number: int, label: str, epochs: int = 2, role: str = "run", **watched: float) -> RunLog:
    return RunLog(
        RunKey(role, number, 1),
        {"label": label, "seed": 7, "config": label},
        0,
        tuple(
            EpochResult(n, 2.0 / n, 0.5, 2.1, 0.4, 100.0, n, watched=watched) for n in range(1, epochs + 1)
        ),
        tuple(range(epochs)),
        End(9, "COMPLETE"),
    )


def test_every_epoch_of_the_list_is_a_row_with_what_was_watched() -> None:
    """What one run did not watch is empty there; trials and confirmations are no part of the list."""
    table = curves_table(
        [
            attempt(0, "baseline", role="baseline"),
            attempt(1, "a", test_accuracy=0.7),
            attempt(9, "trial 9", role="trial"),
        ]
    )

    assert [(row["label"], row["epoch"]) for row in table.rows] == [
        ("baseline", 1),
        ("baseline", 2),
        ("a", 1),
        ("a", 2),
    ]
    assert set(METRICS) < set(table.columns)
    assert [row["test_accuracy"] for row in table.rows] == [None, None, 0.7, 0.7]


def test_of_a_training_tried_again_the_last_try_counts() -> None:
    """The epochs that an interrupted attempt had are not drawn beside those of the next."""
    table = curves_table([attempt(3, "a", 3), attempt(1, "a", 1)])

    assert [row["epoch"] for row in table.rows] == [1, 2, 3]


def test_the_picture_is_a_png_whatever_the_runs_are_called() -> None:
    """Formulas, letters that no font has and control characters are names like others; nothing may warn."""
    names = ["$x_1", "日本 🎈", "a\x1b]0;x", "<script>"]
    table = curves_table([attempt(n, name, test_accuracy=0.5) for n, name in enumerate(names)])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = curves_picture(table, "$ é 실험")

    assert picture.startswith(PNG)
    assert len(picture) > 10_000


def test_nothing_trained_is_an_empty_table_and_picture() -> None:
    """As when every run of the list turned out to have no network."""
    table = curves_table([])

    assert list(table.columns) == ["label", "role", "config", "state", "seed", "epoch", *METRICS]
    assert curves_picture(table, "nothing").startswith(PNG)
