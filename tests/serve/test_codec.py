"""Bytes to photos and back: every format, every sentence."""

import base64
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kennel.errors import UserError
from kennel.preprocessing import Preprocessing
from kennel_serve import codec
from kennel_serve.codec import RequestError

PREPROCESSING = Preprocessing(image_size=32, resize=36)
RED = np.array([255, 0, 0])


def read(body, content_type):
    return codec.read(body, content_type, PREPROCESSING)


def b64(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize(
    "content_type", [None, "application/x-image", "application/octet-stream", "image/png", "Image/JPEG; q=1"]
)
def test_any_photo_under_any_photo_type(photo, format, content_type):
    request = read(photo("red", format), content_type)
    assert request.photos.shape == (1, 3, 32, 32)
    assert request.photos.dtype == np.uint8
    assert not request.is_list
    np.testing.assert_allclose(request.photos[0].mean(axis=(1, 2)), RED, atol=4)


@pytest.mark.parametrize(
    ("wrap", "count", "is_list"),
    [
        (lambda p: p, 1, False),
        (lambda p: {"image": p}, 1, False),
        (lambda p: {"b64": p}, 1, False),
        (lambda p: {"instances": [p]}, 1, True),
        (lambda p: {"instances": [{"b64": p}, p]}, 2, True),
        (lambda p: [p, {"image": p}, p], 3, True),
        (lambda p: {"image": "data:image/jpeg;base64," + p}, 1, False),
        (lambda p: {"image": p[:20] + "\n" + p[20:] + "\n"}, 1, False),
    ],
)
def test_json_forms(photo, wrap, count, is_list):
    request = read(json.dumps(wrap(b64(photo("red")))).encode(), "application/json; charset=utf-8")
    assert request.photos.shape == (count, 3, 32, 32)
    assert request.is_list == is_list
    np.testing.assert_allclose(request.photos.mean(axis=(0, 2, 3)), RED, atol=4)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "words"),
    [
        (b"", "image/jpeg", 400, "empty"),
        (b"abc", "image/jpeg", 400, "not a readable photo"),
        (b"\xff\xd8\xff\xe0 torn", None, 400, "not a readable photo"),
        (b"x", "text/csv", 415, "application/x-image"),
        (b"{", "application/json", 400, "not JSON"),
        (b"[" * 100_000, "application/json", 400, "not JSON"),
        (b"\xff\xfe", "application/json", 400, "not JSON"),
        (b"null", "application/json", 400, "no base64"),
        (b"{}", "application/json", 400, "no base64"),
        (b'{"instances": "x"}', "application/json", 400, "no list"),
        (b"[]", "application/json", 400, "empty"),
        (b'["", ""]', "application/json", 400, "instances[0]: the photo is empty"),
        (b'["%%%"]', "application/json", 400, "instances[0]: not base64"),
        (b'{"image": "YWJj"}', "application/json", 400, "not a readable photo"),
        (json.dumps(["YQ=="] * 257).encode(), "application/json", 413, "257 photos"),
    ],
)
def test_bad_bodies(body, content_type, status, words):
    with pytest.raises(RequestError) as raised:
        read(body, content_type)
    assert raised.value.status_code == status
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_bad_photo_of_a_list_is_named(photo):
    body = json.dumps([b64(photo()), b64(b"no photo")]).encode()
    with pytest.raises(RequestError, match=r"instances\[1\]: not a readable photo"):
        read(body, "application/json")


@given(st.binary(max_size=300), st.sampled_from([None, "application/json", "image/jpeg", "text/plain"]))
def test_any_bytes_are_photos_or_a_request_error(body, content_type):
    photos, status = np.zeros((0, 3, 32, 32)), 400
    try:
        photos = read(body, content_type).photos
    except UserError as error:
        status = error.status_code
    assert photos.shape[1:] == (3, 32, 32)
    assert 400 <= status < 500


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["instances", "image", "b64"]), inner, max_size=3)
        ),
    )
)
def test_any_json_is_photos_or_a_request_error(row):
    with pytest.raises(RequestError):  # nine letters are never a photo
        read(json.dumps(row).encode(), "application/json")


@pytest.mark.parametrize(
    "accept", [None, "", "*/*", "application/*", "text/csv, application/json;q=0.9", "Application/JSON"]
)
def test_accept_that_allows_json(accept):
    codec.check_accept(accept)


@pytest.mark.parametrize("accept", ["text/csv", "image/*", "application/x-npy"])
def test_accept_that_leaves_json_out(accept):
    with pytest.raises(RequestError, match="application/json") as raised:
        codec.check_accept(accept)
    assert raised.value.status_code == 406


def test_answers_are_sorted_and_cut():
    probabilities = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], np.float32)
    one, many = (
        json.loads(codec.write(probabilities[:count], ("a", "b", "c"), codec.Options(top_k), is_list)[0])
        for count, top_k, is_list in ((1, 2, False), (None, 9, True))
    )
    assert one == {"predictions": [{"label": "b", "probability": 0.7}, {"label": "c", "probability": 0.2}]}
    assert [[row["label"] for row in answer] for answer in many["predictions"]] == [["b", "c", "a"], ["a", "c", "b"]]


@pytest.mark.parametrize(
    ("attributes", "expected"), [(None, 5), ("", 5), ("trace=1", 5), ("trace=1, top_k=3", 3), ("top_k=2,top_k=4", 2)]
)
def test_top_k(attributes, expected):
    assert codec.top_k(attributes) == expected


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1.5", "9" * 30, "²"])
def test_bad_top_k(text):
    with pytest.raises(RequestError, match="top_k"):
        codec.top_k(f"top_k={text}")


def test_a_decompression_bomb_is_too_large_not_malformed():
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    with pytest.raises(RequestError, match="20000x20000 pixels") as caught:
        read(bomb.getvalue(), "image/png")
    assert caught.value.status_code == 413
