import io
from dataclasses import replace

import pytest
from PIL import Image

from lenet_exp.results.figures.selection import Curve
from lenet_exp.results.views.overview import overview
from lenet_exp.study.records import TrialRecord
from tests.results.figures.test_selection import EVIL, STUDY, epochs

NAMED = replace(STUDY[1], label=EVIL, result={**STUDY[1].result, "reason": EVIL})


@pytest.mark.parametrize("records", [[], [STUDY[0]], [STUDY[1]], STUDY[:4], [STUDY[3]], [NAMED]])
def test_any_study_has_a_picture(records: list[TrialRecord]) -> None:
    """With nothing, the baseline alone, no baseline, nothing completed, or names that are formulas."""
    curves = [Curve(record.label, epochs(0.5)) for record in records]

    with Image.open(io.BytesIO(overview(records, curves))) as picture:
        assert picture.size == (1200, 800)
