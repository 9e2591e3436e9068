"""serve/openapi.yaml against a running endpoint: schemathesis asks what it allows and what it does not.

Photos and lines come from here, since nothing draws a JPEG by chance; all else follows from the description.
"""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

DESCRIPTION = Path(__file__).resolve().parents[3] / "serve" / "openapi.yaml"
EXAMPLES = 60


def _file(color: str, format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 12), color).save(file, format)
    return file.getvalue()


def _array(*shape: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.full(shape, 200, np.uint8))
    return file.getvalue()


PHOTOS = [
    _file(color, format)
    for color in ("red", "blue")
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
]
ARRAYS = [_array(*shape) for shape in ((12, 20, 3), (2, 12, 20, 3))]
TEXTS = st.sampled_from(PHOTOS).map(lambda photo: base64.b64encode(photo).decode())
ENTRIES = TEXTS | TEXTS.map(lambda text: {"image": text}) | TEXTS.map(lambda text: {"b64": text})
LINES = st.lists(ENTRIES.map(json.dumps), min_size=1, max_size=5).map(lambda lines: "\n".join(lines).encode())
schemathesis.openapi.format("byte", TEXTS)
schemathesis.openapi.media_type(
    "application/jsonlines", LINES, aliases=["application/x-jsonlines", "application/jsonl"]
)
schemathesis.openapi.media_type("application/x-npy", st.sampled_from(ARRAYS))
schemathesis.openapi.media_type(
    "application/octet-stream",
    st.sampled_from(PHOTOS),
    aliases=[
        "application/x-image",
        "binary/octet-stream",
        *(
            f"image/{format}"
            for format in ("jpeg", "jpg", "pjpeg", "png", "x-png", "webp", "gif", "bmp", "tiff", "avif", "heic", "heif")
        ),
    ],
)


CONFIG = {"checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}}}  # by itself it does not know of 413
description = schemathesis.openapi.from_path(DESCRIPTION, config=schemathesis.Config.from_dict(CONFIG))


# No parameter of an OpenAPI description may be called Accept.
@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/jsonlines", "text/csv; header=present"])
@description.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_endpoint_is_as_described(case, accept, endpoint):
    case.call_and_validate(base_url=f"http://127.0.0.1:{endpoint.port}", headers={"Accept": accept})
