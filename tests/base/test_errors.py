import pytest

from lenet_exp.base import errors

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


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://mlflow.example/x", "https://mlflow.example/x"),
        ("https://ann:s3cret@mlflow.example/x", "https://***@mlflow.example/x"),
        ("https://t0ken@mlflow.example", "https://***@mlflow.example"),
        ("postgresql+psycopg://ann:p@ss@db/x", "postgresql+psycopg://***@db/x"),
        ("no http://a:b@c, and no http://d:e@f", "no http://***@c, and no http://***@f"),
        ("postgresql://db/x?user=ann&password=abc&a=b", "postgresql://db/x?user=ann&password=***&a=b"),
        ("http://h/?access_token='abc'", "http://h/?access_token='abc'"),
        ("http://h/?api_token=abc x", "http://h/?api_token=*** x"),
        ("postgresql://ann:p/w@db/x", "postgresql://***@db/x"),
        ("http://h/?API_KEY=abc&a=b", "http://h/?API_KEY=***&a=b"),
        ("mail to ann@example.com", "mail to ann@example.com"),
    ],
)
def test_secrets_are_masked(text: str, masked: str) -> None:
    """User, password and token of a URL never show, wherever in a text it is; all else does."""
    assert errors.mask_url(text) == masked
