"""Converting only what a network sees gives the answers of the picture converted as a whole, with real weights.

Stated tolerance: the same faces (IoU at least 0.95) with the same gender, and ages within one and a half years.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from dulian.analyzer import Analyzer, FullPicture
from dulian.faces import AnalysisResult
from dulian.factory import open_profile
from dulian.image import Picture, decode_image, open_picture
from dulian.models.catalog import PROFILES
from dulian.store import ModelStore
from tests.golden.test_reduced import overlap
from tests.pictures import adobe_profile, in_adobe_rgb, save

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module", params=list(PROFILES))
def analyzer(request: pytest.FixtureRequest, model_store: ModelStore) -> Analyzer:
    return open_profile(PROFILES[request.param], model_store).new_analyzer()


def adobe_jpeg(samples: Path, side: int, *, turned: bool = False) -> Picture:
    """The sample portrait as a camera set to Adobe RGB would store it."""
    portrait = decode_image((samples / "astronaut.png").read_bytes()).image
    sized = np.asarray(cv2.resize(portrait, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
    upright = sized[..., ::-1]
    stored = in_adobe_rgb(PillowImage.fromarray(np.ascontiguousarray(np.rot90(upright) if turned else upright)))
    return open_picture(save(stored, "JPEG", quality=95, icc_profile=adobe_profile()))


def answers(analyzer: Analyzer, picture: Picture, *, lazy: bool) -> AnalysisResult:
    def full(factor: int) -> np.ndarray:
        return picture.decode(factor, own_colours=lazy).image

    reduction = analyzer.reduction_for(picture.wh, picture.reductions)
    decoded = picture.decode(reduction, own_colours=lazy)
    assert (decoded.to_srgb is not None) == lazy
    behind = FullPicture(picture.wh, full, picture.reductions) if reduction > 1 else None
    return analyzer.analyze(decoded.image, full=behind, to_srgb=decoded.to_srgb)


@pytest.mark.parametrize(("side", "turned"), [(512, False), (512, True), (1301, False), (2000, False)])
def test_converted_where_it_is_looked_at_or_as_a_whole(
    analyzer: Analyzer, samples: Path, side: int, turned: bool
) -> None:
    picture = adobe_jpeg(samples, side, turned=turned)
    lazy, eager = (answers(analyzer, picture, lazy=lazy) for lazy in (True, False))
    assert lazy.image == eager.image
    assert len(lazy.faces) == len(eager.faces) == 1
    face, same = lazy.faces[0], eager.faces[0]
    assert overlap(face.box, same.box) >= 0.95
    assert face.gender is not None
    assert same.gender is not None
    assert face.age is not None
    assert same.age is not None
    assert face.gender.value == same.gender.value
    assert face.age.value == pytest.approx(same.age.value, abs=1.5)
    assert face.quality.reasons == same.quality.reasons
