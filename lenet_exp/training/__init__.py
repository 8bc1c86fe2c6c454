"""Inside an attempt's process: network, optimizers, the loop over epochs, measurements; device, precision."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    evaluate="Inspection SavedNetwork alone_examples_per_s correct_predictions "
    "evaluate_networks faults inspect_networks",
    loop="begin fit",
    network="LeNet initialise",
    weights="SHA256 damaged_weights read_weights recorded_digest restore_weights weights_digest",
)
