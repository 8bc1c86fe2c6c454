"""The figures: what each of them shows, and how it is drawn for a browser and as a picture."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    chart="BASELINE COLOURS Chart FAINT FRONT TRIAL",
    comparisons="ablation confirmation",
    curves="learning_curves",
    hyperparameters="contour importance parallel slices",
    networks="Seen activations confusion filters mistakes see",
    picture="chart_png plain png",
    search="history throughput timeline",
    selection="Curve baseline_of complete floor incumbent last_accuracy on_front tried varied",
    tradeoffs="pareto_fronts",
)
