"""``python -m lenet_exp.sweep``: the main job, the same as ``lenet-exp sweep``.

Nothing is imported at module level, because every worker process imports this module again.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the main job with the arguments of the command line."""
    from lenet_exp.execution.signals import own_process

    own_process()
    from lenet_exp.cli import program

    program.main(["sweep", *sys.argv[1:]])


if __name__ == "__main__":
    main()
