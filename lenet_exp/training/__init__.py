"""Inside that process: the network, its optimizers, the loop over epochs, and what is measured."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    evaluate="Trained alone_examples_per_s right score",
    loop="begin fit",
    network="LeNet initialise",
)
