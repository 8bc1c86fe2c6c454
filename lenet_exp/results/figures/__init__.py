"""The figures: what each of them shows, and how it is drawn for a browser and as a picture."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    chart="BASELINE COLOURS FAINT FRONT TRIAL",
    picture="plain png",
    selection="Curve baseline_of complete floor incumbent last_accuracy on_front tried varied",
)
