"""The row of settings in a manifest, and the square that is cut."""

from dataclasses import asdict

import pytest
from PIL import Image

from kennel.errors import UserError
from kennel.photos.preprocessing import Preprocessing, square

ROW = Preprocessing(image_size=32, resize=36, interpolation="bicubic")


def test_the_middle_is_kept():
    wide = Image.new("RGB", (300, 40), "black")
    wide.paste("white", (130, 0, 170, 40))
    assert square(wide, ROW).min() > 200


def test_a_row_survives_the_manifest_and_a_strange_one_is_refused():
    assert Preprocessing.from_json(asdict(ROW)) == ROW
    for change in ({"interpolation": "magic"}, {"resize": 3}, {"unknown": 1}, {"mean": (0.5,)}):
        with pytest.raises(UserError, match="preprocessing"):
            Preprocessing.from_json({**asdict(ROW), **change})
