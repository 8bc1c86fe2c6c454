"""What a user writes: the experiment file, hyper-parameters, space, ablation; which networks are feasible."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    architecture="InfeasibleError POOL cost flat_features layers",
    describe="description differences",
    experiment="Confirm Data Experiment FIRST_SEEDS MAX_CONFIRM_SEEDS Training Watch",
    hyperparameters="Activation CLASSES Configuration HYPERPARAMETERS Init Loss PER_LAYER Precision "
    "split_key",
    loader="experiment_path load",
    space="Choice Dimension Fixed Range SPACE_KEYS",
    trainings="FixedTraining fixed_trainings trained_on",
)
