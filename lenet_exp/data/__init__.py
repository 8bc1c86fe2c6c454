"""Data sets: their sources, verification and division, and the one door to the test split."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    cache="Cache",
    datasets="DATASETS find_dataset",
    images="ImageSet training_images",
    split="Split division division_seed",
    testset="shown_test_images",
)
