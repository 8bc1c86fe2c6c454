"""``python -m lenet_exp.sweep``: the main job, the same as ``lenet-exp sweep``.

Imports nothing at its top, because every worker imports its caller's main module.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the main job with the arguments of the command line."""
    from lenet_exp.cli import program

    program.main(["sweep", *sys.argv[1:]])


if __name__ == "__main__":
    main()
