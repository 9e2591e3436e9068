"""Formats by their first bytes."""

import io

import pytest
from PIL import Image

from kennel.photos.file_formats import HEAD, suffix


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_each_format_is_seen_in_eight_bytes_and_in_sixteen(format: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(file, format)
    assert suffix(file.getvalue()[:HEAD])
    assert suffix(file.getvalue()[:8])
    assert not suffix(b"a text of a line")
