"""The figures: what each of them shows, and how it is drawn for a browser and as a picture."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    browser="figure_html",
    chart="Axis BASELINE CELLS COLOURS Chart Dash FAINT Heat Images Intervals LINES Line "
    "Mark Panel Parallel Points Reference Value",
    comparisons="ablation confirmation",
    curves="learning_curves",
    hyperparameters="contour importance parallel slices",
    networks="Seen activations confusion filters mistakes see",
    picture="chart_png plain png",
    search="history throughput timeline",
    tradeoffs="pareto_fronts",
)
