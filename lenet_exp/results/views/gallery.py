"""All figures of an experiment in the order of a reader, and their pictures in the experiment's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from lenet_exp.base.errors import LenetExpError
from lenet_exp.base.files import make_folder, read_file, write_atomically
from lenet_exp.base.layout import Layout
from lenet_exp.base.messages import say
from lenet_exp.results.figures.chart import Chart
from lenet_exp.results.figures.comparisons import ablation, confirmation
from lenet_exp.results.figures.curves import learning_curves
from lenet_exp.results.figures.hyperparameters import contour, importance, parallel, slices
from lenet_exp.results.figures.networks import Seen, activations, confusion, filters, mistakes, see
from lenet_exp.results.figures.picture import chart_png
from lenet_exp.results.figures.search import history, throughput, timeline
from lenet_exp.results.figures.tradeoffs import pareto_fronts
from lenet_exp.results.lookup import ExperimentResults

_Builder = Callable[[ExperimentResults], Chart | None]

#: The figures of a search in the order of a reader: the verdict, what accuracy costs, how the search went.
_OF_A_SEARCH: tuple[_Builder, ...] = (
    *(confirmation, pareto_fronts, history, learning_curves, importance, slices, contour, parallel),
    *(timeline, throughput),
)
#: Those of a list, which asks how its runs differ, and of an ablation, which asks what each factor does.
_OF_A_LIST: tuple[_Builder, ...] = (
    learning_curves,
    history,
    confirmation,
    pareto_fronts,
    timeline,
    throughput,
)
_OF_AN_ABLATION: tuple[_Builder, ...] = (ablation, learning_curves, pareto_fronts, timeline, throughput)
_OF_NETWORKS: tuple[Callable[[Seen], Chart | None], ...] = (confusion, mistakes, filters, activations)


def gallery(results: ExperimentResults) -> list[Chart]:
    """Return all figures that apply to an experiment; one that fails costs a warning, not the page."""
    experiment = results.experiment
    builders = _OF_AN_ABLATION if experiment.ablate else _OF_A_LIST if experiment.run else _OF_A_SEARCH
    charts = [_built(builder, results) for builder in builders]
    return [*filter(None, charts), *_of_networks(results)]


def _built(builder: _Builder, results: ExperimentResults) -> Chart | None:
    # A record that somebody has changed may hold anything, so any error can come of it.
    try:
        return builder(results)
    except Exception as error:
        say(f"warning: {_reason(error)}; the figure {builder.__name__.replace('_', ' ')} is left out")
        return None


def _of_networks(results: ExperimentResults) -> Iterator[Chart]:
    try:
        seen = see(results)
        yield from filter(None, (draw(seen) for draw in _OF_NETWORKS) if seen else ())
    except Exception as error:
        names = ", ".join(draw.__name__ for draw in _OF_NETWORKS)
        say(f"warning: {_reason(error)}; the figures {names} are left out")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, LenetExpError) else f"{type(error).__name__}: {error}"


def draw_pictures(charts: Sequence[Chart], layout: Layout) -> None:
    """Write the picture of each chart, if it is not there already, and remove those of other charts.

    Args:
        charts: Charts that `gallery` returned.
        layout: Paths of the experiment; the pictures are written to ``layout.figures``.

    Raises:
        DiskError: If a picture cannot be written.
    """
    make_folder(layout.figures)
    pictures = {layout.figure(chart.key): chart_png(chart) for chart in charts}
    for path in {*layout.figures.glob("*.png"), layout.overview} - pictures.keys():
        path.unlink(missing_ok=True)
    for path, content in pictures.items():
        # What is unchanged is not uploaded again.
        if not path.is_file() or read_file(path) != content:
            write_atomically(path, content)
