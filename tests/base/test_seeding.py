from hypothesis import given
from hypothesis import strategies as st

from lenet_exp.base.seeding import derive_seed

names = st.lists(st.text(max_size=5) | st.integers(), max_size=3)


@given(st.integers(), names)
def test_a_seed_fits_every_generator_and_database(root: int, stream: list[str | int]) -> None:
    """A derived seed is in [0, 2**63)."""
    assert 0 <= derive_seed(root, *stream) < 2**63


@given(names, names)
def test_streams_with_different_names_differ(one: list[str | int], other: list[str | int]) -> None:
    """Two names share a seed only if they are the same, type included."""
    same = [repr(part) for part in one] == [repr(part) for part in other]

    assert (derive_seed(0, *one) == derive_seed(0, *other)) == same


def test_a_seed_is_the_same_on_every_machine_and_day() -> None:
    """The value is part of the record of old studies, so it may never change."""
    assert derive_seed(0, "trial", 1) == 8505026012517607386
