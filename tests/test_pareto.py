import math

from hypothesis import given
from hypothesis import strategies as st

from lenet_exp.pareto import pareto_front


@given(st.lists(st.tuples(*[st.integers(0, 5) | st.just(math.nan)] * 2), max_size=15))
def test_the_pareto_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    """A point is on the front if none is as good in both and better in one; unknown points are outside."""

    def beaten(x: float, y: float) -> bool:
        return any(a >= x and b >= y and (a > x or b > y) for a, b in points)

    assert pareto_front(points) == [x == x and y == y and not beaten(x, y) for x, y in points]
