from lenet_exp import errors

EXIT_CODES = {
    "ConfigError": 2,
    "NoResultError": 3,
    "DataError": 4,
    "DiskError": 5,
    "PortError": 6,
    "UnreachableError": 7,
    "LockedError": 8,
    "StoreError": 9,
    "DeviceError": 10,
}


def test_each_error_has_its_own_exit_code() -> None:
    """The codes are those that the README promises."""
    found = {cls.__name__: cls.exit_code for cls in errors.LenetExpError.__subclasses__()}

    assert {name: found[name] for name in EXIT_CODES} == EXIT_CODES


def test_an_interrupted_sweep_says_which_signal_it_was() -> None:
    """130 is Ctrl-C, 143 is SIGTERM."""
    assert errors.SweepInterruptedError("stopped").exit_code == 130
    assert errors.SweepInterruptedError("stopped", 143).exit_code == 143
