import re

from test_structure import imports, modules

from lenet_exp import __version__
from lenet_exp.version import DECISIVE, code_version

#: What training imports too, and what cannot change a number: errors, files, and where data are found.
HARMLESS = {"errors", "record", "files", "idx", "cache", "download", "sources"}


def test_the_version_is_the_package_s_and_that_of_what_trains() -> None:
    """It is the same whenever it is asked for."""
    assert re.fullmatch(rf"{re.escape(__version__)}\+[0-9a-f]{{8}}", code_version())
    assert code_version() == code_version()


def test_every_module_that_training_imports_is_known_to_decide_or_not() -> None:
    """A module that is new to training is a choice to make here."""
    reached, found = set(), {"train"}
    while found:
        reached |= found
        ours = {name.split(".")[1] for module in found for name in imports(module) if "lenet_exp." in name}
        found = (ours & set(modules())) - reached

    assert reached - HARMLESS == set(DECISIVE)
