"""``python -m lenet_exp``: the command line, the same as ``lenet-exp``."""


def main() -> None:
    """Run the command line of this process."""
    from lenet_exp.execution.signals import own_process

    own_process()  # before the command line is loaded, which takes long enough to press Ctrl-C
    from lenet_exp.cli import program

    program.main()


if __name__ == "__main__":
    main()
