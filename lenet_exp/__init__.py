"""Which LeNet is better than the baseline, by how much, and how sure are we?

import lenet_exp

results = lenet_exp.run_sweep("quick", root="mlruns")
results.leaderboard, results.curves, results.verdicts, results.champion
"""

from typing import TYPE_CHECKING

from lenet_exp.base.faces import face

__version__ = "0.1.0"

if TYPE_CHECKING:  # for editors and type checkers; at run time each is loaded when it is first asked for
    from lenet_exp.base.errors import LenetExpError
    from lenet_exp.results.leaderboard import read_leaderboard
    from lenet_exp.results.views.notebook import Results
    from lenet_exp.sweep.api import load_experiment, open_results, run_sweep

__all__ = ["LenetExpError", "Results", "load_experiment", "open_results", "read_leaderboard", "run_sweep"]

__getattr__, __dir__ = face(
    __name__,
    **{
        "base.errors": "LenetExpError",
        "results.leaderboard": "read_leaderboard",
        "results.views.notebook": "Results",
        "sweep.api": "load_experiment open_results run_sweep",
    },
)
