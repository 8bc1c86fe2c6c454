"""``python -m lenet_exp``: the command line, the same as ``lenet-exp``."""

from lenet_exp.cli.program import main

if __name__ == "__main__":
    main()
