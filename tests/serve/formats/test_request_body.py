"""Bytes to photos: every format, every limit, every sentence."""

import base64
import gzip
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kennel.errors import UserError
from kennel.photos.preprocessing import Preprocessing
from kennel_serve.formats import request_body
from kennel_serve.formats.request_body import RequestError

PREPROCESSING = Preprocessing(image_size=32, resize=36)
RED, BLUE = np.array([255, 0, 0]), np.array([0, 0, 255])
JSON, LINES, NPY = "application/json", "application/jsonlines", "application/x-npy"


def read(body, content_type):
    return request_body.read(body, content_type, PREPROCESSING)


def b64(data):
    return base64.b64encode(data).decode()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def large(side):
    """A grey photo of side x side pixels in few bytes."""
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize(
    "content_type",
    [None, "application/x-image", "binary/octet-stream", "image/*", "image/pjpeg", "image/x-png", "Image/JPEG; q=1"],
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
        (lambda p: {"instances": p}, 1, True),
        (lambda p: {"inputs": [p, p]}, 2, True),
        (lambda p: {"image": p.translate(str.maketrans("+/", "-_"))}, 1, False),
        (lambda p: {"image": p.translate(str.maketrans("+/", "-_")).rstrip("=")}, 1, False),
        (lambda p: {"inputs": [p.rstrip("="), p[:9] + " " + p[9:].rstrip("=")]}, 2, True),
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


@pytest.mark.parametrize("size", [(50, 40), (400, 600)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pixels_are_what_a_png_of_them_is(size, order):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    expected = read(file.getvalue(), "image/png").photos
    alone = read(npy(np.asarray(noise, order=order)), NPY)
    several = read(npy(np.asarray([noise, noise[::-1]], order=order)), "Application/X-NPY; x=y")
    assert (alone.is_list, several.is_list, several.photos.shape) == (False, True, (2, 3, 32, 32))
    np.testing.assert_array_equal(alone.photos, expected)
    np.testing.assert_array_equal(several.photos[:1], expected)


@pytest.mark.parametrize("content_type", [LINES, "application/x-jsonlines", "Application/JSONL; charset=utf-8"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n\n"])
def test_json_lines_are_one_photo_each(photo, content_type, end):
    red, blue = b64(photo("red")), b64(photo("blue"))
    lines = [json.dumps(line) for line in (red, {"image": blue, "id": 7}, {"b64": red})]
    request = read(("\r\n".join(lines) + end).encode(), content_type)
    assert request.is_list
    np.testing.assert_allclose(request.photos.mean(axis=(2, 3)), [RED, BLUE, RED], atol=4)


def test_one_json_line_is_a_list_of_one(photo):
    request = read(json.dumps(b64(photo())).encode(), LINES)
    assert (len(request.photos), request.is_list) == (1, True)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "words"),
    [
        (b"", "image/jpeg", 400, "empty"),
        (b"abc", "image/jpeg", 400, "not a readable photo"),
        (b"\xff\xd8\xff\xe0 torn", None, 400, "not a readable photo"),
        (b"x", "text/plain", 415, "send one of application/json, application/jsonlines"),
        (b"x", "text/csv", 415, "only the photo's file says how"),
        (b"x", "application/x-npz", 415, "send one array as application/x-npy, or send the photo file's bytes"),
        (b"x", NPY, 400, "not what numpy.save writes (it does not begin as such a file does): send such a file, uint8"),
        (npy(np.zeros((9, 9, 3), np.uint8))[:-1], NPY, 400, "its head says 243 bytes of numbers, and there are 242"),
        (npy(np.array([{}])), NPY, 400, "Python objects in it, which only a pickle can hold, are not read"),
        (npy(np.array(["a"])), NPY, 400, "its type '<U1' is no number"),
        (
            npy(np.zeros((9, 9, 3))),
            NPY,
            400,
            "an array of float64 (9, 9, 3) is not taken: send uint8 (H, W, 3) or (N, H",
        ),
        (npy(np.zeros((3, 9, 9), np.uint8)), NPY, 400, "an array of uint8 (3, 9, 9) is not taken"),
        (npy(np.zeros((9, 9), np.uint8)), NPY, 400, "an array of uint8 (9, 9) is not taken"),
        (npy(np.zeros((0, 9, 3), np.uint8)), NPY, 400, "an array of uint8 (0, 9, 3) is not taken"),
        (npy(np.zeros((87_382, 1, 1, 3), np.uint8)), NPY, 413, "87382 photos, the limit is 87381"),
        (gzip.compress(b"photo", mtime=0), "image/png", 400, "this is packed by gzip, not a photo's bytes: send"),
        (json.dumps(b64(b"\x28\xb5\x2f\xfd rest")).encode(), JSON, 400, "this is packed by zstd, not a photo's bytes"),
        (b"x", "multipart/form-data; boundary=x", 415, "a form is not taken: send the photo file's bytes"),
        (b"x", "application/x-www-form-urlencoded", 415, "a form is not taken: send the photo file's bytes"),
        (b"{", JSON, 400, "not JSON"),
        (b"[" * 5_000, JSON, 400, "nested too deep"),
        (b"\xff\xfe", JSON, 400, "not JSON"),
        (b"null", JSON, 400, "no base64"),
        (b"{}", JSON, 400, "no base64"),
        (b'{"instances": {"a": 1}}', JSON, 400, "no list"),
        (b'{"image": "https://example.com/a.jpg"}', JSON, 400, "a URL is not fetched"),
        (b'{"image":' * 900 + b"1" + b"}" * 900, JSON, 400, "no base64"),
        (b'["gs://bucket/a.jpg"]', JSON, 400, "instances[0]: a URL is not fetched"),
        (b'{"image": {"url": " FILE:///a.jpg"}}', JSON, 400, "a URL is not fetched"),
        (b"https://example.com/a.jpg", "image/jpeg", 400, "a URL is not fetched"),
        (b'{"instances": [[[0, 255]]]}', JSON, 400, "pixels are not taken in JSON: send {"),
        (b'{"inputs": [0.5, 1.0]}', JSON, 400, "instances[0]: pixels are not taken in JSON: send {"),
        (json.dumps([[[0, 1, 2]] * 90] * 90).encode(), JSON, 400, "pixels are not taken in JSON: send {"),
        (base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(40)), "application/x-image", 400, "this is base64, not a photo"),
        (b"\n" + base64.urlsafe_b64encode(b"BM\xff\xff" + bytes(40)), "image/bmp", 400, "this is base64, not a photo"),
        (repr(base64.b64encode(b"II*\x00" + bytes(40))).encode(), "image/tiff", 400, "this is base64, not a photo"),
        (
            b"data:image/png;base64,iVBO",
            "image/png",
            400,
            "this is base64, not a photo's bytes: send the bytes, or appl",
        ),
        (
            b' {"image": "YWJj"}',
            "application/x-image",
            400,
            "this is JSON, not a photo's bytes: send it as application/json",
        ),
        (
            npy(np.zeros((9, 9, 3), np.uint8)),
            "image/jpeg",
            400,
            "this is a numpy array, not a photo's bytes: send it as",
        ),
        (
            b"\xff\xd8\xff\xe0" + bytes(40),
            JSON,
            400,
            "this is a photo's bytes, not JSON: send them as application/x-im",
        ),
        (b"GIF89a\n" + bytes(40), LINES, 400, "line 1: this is a photo's bytes, not JSON: send them as application"),
        (b"[]", JSON, 400, "empty"),
        (b'["", ""]', JSON, 400, "instances[0]: the photo is empty"),
        (b'["%%%"]', JSON, 400, "instances[0]: not base64"),
        (b'{"image": "YWJj"}', JSON, 400, "not a readable photo"),
        (json.dumps(["YQ=="] * 10_002).encode(), JSON, 413, "more than 10000 values"),
        (b"[%s]" % b",".join([b"[]"] * 5_001), JSON, 413, "more than 10000 values"),
        (b" \n\r\n", LINES, 400, "no line with a photo"),
        (b'"YQ=="\n' * 87_382, LINES, 413, "87382 photos, the limit is 87381"),
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
    with pytest.raises(RequestError, match=r"^instances\[1\]: not a readable photo"):
        read(body, JSON)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "it is blank"),
        ("{", "it is not JSON"),
        ("[1]", "pixels are not taken"),
        ('{"instances": []}', "no base64 photo there"),
        ('"%%%"', "not base64"),
        ('""', "the photo is empty"),
        ('"YWJj"', "not a readable photo"),
        ("[" + "{}," * 5_001 + "1]", "it holds more than 10000 values"),
        ("[" + "1," * 10_000 + "1]", "pixels are not taken in JSON"),
        ('{"url": "HTTPS://example.com/a.jpg"}', "a URL is not fetched"),
    ],
)
def test_the_bad_line_is_named(photo, line, words):
    good = json.dumps(b64(photo()))
    with pytest.raises(RequestError, match=f"^line 2: {words}"):
        read(f"{good}\n{line}\n{good}".encode(), LINES)


def test_a_decompression_bomb_is_too_large_not_malformed():
    with pytest.raises(RequestError, match="20000x20000 pixels") as caught:
        read(large(20_000), "image/png")
    assert caught.value.status_code == 413


@pytest.mark.parametrize(("content_type", "between"), [(JSON, ","), (LINES, "\n")])
def test_the_photos_of_a_request_are_limited_together_before_one_is_decoded(content_type, between):
    torn = large(9_000)[:100]
    text = between.join([json.dumps(b64(torn))] * 4)
    with pytest.raises(RequestError, match="324000000 pixels together, the limit is 300000000") as caught:
        read((f"[{text}]" if content_type == JSON else text).encode(), content_type)
    assert caught.value.status_code == 413


def test_the_most_photos_of_a_megapixel_are_taken():
    """More than the 281 lines with which SageMaker fills a batch of 6 MB."""
    body = json.dumps([b64(large(1_000))] * 300).encode()
    assert len(read(body, JSON).photos) == 300


def test_the_most_photos_follow_from_their_size():
    assert request_body.most_photos(Preprocessing(image_size=224)) == 1783
    assert request_body.most_photos(Preprocessing(image_size=1024, resize=1024)) == 85


def outcome(body, content_type):
    """The photos' shape, a good one where there are none, and the status."""
    try:
        return read(body, content_type).photos.shape[1:], 200
    except UserError as error:
        return (3, 32, 32), error.status_code


@given(st.binary(max_size=300), st.sampled_from([None, JSON, LINES, NPY, "image/jpeg", "text/plain"]))
def test_any_bytes_are_photos_or_a_request_error(body, content_type):
    shape, status = outcome(body, content_type)
    assert shape == (3, 32, 32)
    assert status == 200 or 400 <= status < 500


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["instances", "image", "b64"]), inner, max_size=3)
    ),
)


@given(ANY_JSON)
def test_any_json_is_photos_or_a_request_error(row):
    with pytest.raises(RequestError):  # nine letters are never a photo
        read(json.dumps(row).encode(), JSON)


@given(st.lists(ANY_JSON.map(json.dumps) | st.text(max_size=9), max_size=4), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_lines_are_photos_or_a_request_error(lines, end):
    with pytest.raises(RequestError):
        read(end.join(lines).encode(), LINES)


@pytest.mark.parametrize("kind", [JSON, LINES])
def test_a_bad_photo_of_a_list_fails_its_line_alone_where_that_is_asked_for(photo, kind):
    entries = [b64(photo("red", "PNG")), b64(b"no photo"), 7, b64(large(20_000)), b64(photo("blue", "JPEG"))]
    body = json.dumps(entries) if kind == JSON else "\n".join(map(json.dumps, [*entries[:4], {}, entries[4]]))
    bad = range(1, 4) if kind == JSON else range(1, 5)
    with pytest.raises(RequestError):
        read(body.encode(), kind)
    request = request_body.read(body.encode(), kind, PREPROCESSING, on_error="line")
    assert [at for at, error in enumerate(request.errors) if error] == list(bad)
    place = "instances[3]: " if kind == JSON else "line 4: "
    assert request.errors[3].startswith(place + "the photo has 20000x20000 pixels")
    np.testing.assert_allclose(request.photos[0].mean(axis=(1, 2)), RED, atol=4)
    np.testing.assert_allclose(request.photos[-1].mean(axis=(1, 2)), BLUE, atol=4)
    with pytest.raises(RequestError, match="not a readable photo"):  # one photo alone is the whole request
        request_body.read(json.dumps(entries[1]).encode(), JSON, PREPROCESSING, on_error="line")
