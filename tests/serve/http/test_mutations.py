"""Mutated photos and requests over real HTTP: each gets 2xx or 4xx, and the workers outlive them all.

KENNEL_MUTATIONS says how many. A case follows from its number alone: KENNEL_MUTATION=123 sends that one again.
"""

import base64
import http.client
import io
import json
import os
import random
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

COUNT = int(os.environ.get("KENNEL_MUTATIONS", "1000"))
ONLY = os.environ.get("KENNEL_MUTATION")
CONNECTIONS = 4
GROWTH = 150 * 1024 * 1024  # of a worker, in all
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "photos"

TYPES = [
    *("application/x-image", "application/octet-stream", "application/json", "application/jsonlines"),
    *("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff"),
    *("text/csv", "application/x-npy", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"),
]
ACCEPTS = ["*/*", "application/json", "application/jsonlines;q=0.5, text/csv", "text/csv; header=present", "image/*"]
OPTIONS = [
    "top_k=3",
    "on_error=line",
    "threshold=0.1",
    "all",
    "all=false",
    "top_k=2,threshold=1e-3",
    "trace=7; top_k=1",
    "top_k=x",
]
TOKENS = ["{", "}", "[", "]", ",", ":", '"', "\\", "\n", "null", "NaN", "-1e999", "9" * 5000, '"\\ud800"', "\ufeff"]
TOKENS += ['"instances"', '"image"', '"b64"', '"data:image/png;base64,"', "[" * 2000, "\x00"]


@dataclass(frozen=True)
class Case:
    """One request, ready to be sent."""

    path: str
    headers: dict[str, str]
    body: bytes

    def __str__(self) -> str:
        return f"POST {self.path[:300]} {self.headers} {len(self.body)} bytes: {self.body[:80]!r}..."


def _files() -> list[bytes]:
    """Photos of every format and of the modes that have a path of their own through the decoders."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    image = Image.fromarray(noise).resize((160, 120))
    frames = {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        *(("RGB", format, {}) for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True, "exif": exif}),
        *((mode, "PNG", {}) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
        ("RGBA", "WEBP", {"lossless": True}),
        ("RGB", "WEBP", frames),
        ("P", "GIF", frames),
        ("P", "BMP", {}),
        *(("RGB", "TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
        ("1", "TIFF", {"compression": "group4"}),
        ("CMYK", "TIFF", {"exif": exif}),
    ]
    files = [path.read_bytes() for path in sorted(SHARED.glob("*.JPEG"))[:4]]
    for mode, format, how in kinds:
        file = io.BytesIO()
        (image.convert("I") if mode == "I;16" else image).convert(mode).save(file, format, **how)
        files.append(file.getvalue())
    return files


FILES = _files()


def _bytes(rng: random.Random, data: bytes) -> bytes:
    """Some of it changed, in the head more often than chance would have it."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        end = min(len(found), rng.choice((512, 1 << 30, 1 << 30)))
        at, more = rng.randrange(end + 1), rng.choice((1, 2, 4, 64, 4096))
        match rng.randrange(7):
            case 0 if at < len(found):
                found[at] ^= 1 << rng.randrange(8)
            case 1:
                found[at : at + more] = rng.randbytes(len(found[at : at + more]))
            case 2:
                found[at:at] = rng.randbytes(more)
            case 3:
                del found[at : at + more]
            case 4:
                del found[at:]
            case 5:
                found[at:at] = found[at : at + more] * rng.choice((1, 3))
            case _:
                found[at : at + more] = rng.choice((b"\x00", b"\xff", b"\x7f")) * len(found[at : at + more])
    return bytes(found)


def _text(rng: random.Random, text: str) -> str:
    """Some of its tokens exchanged, doubled or dropped; base64 is one token."""
    parts = re.findall(r"\w+|.", text, re.DOTALL)
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        at = rng.randrange(len(parts) + 1)
        parts[at : at + rng.randrange(3)] = rng.choice(([], [rng.choice(TOKENS)], parts[at : at + 1] * 2))
    return "".join(parts)


def _words(rng: random.Random, text: str) -> str:
    """A header's value: one line, any byte; seldom a control character, at which HTTP's parser ends."""
    if rng.random() < 0.6:
        return text
    forbidden = "[\r\n]" if rng.random() < 0.1 else "[\x00-\x1f\x7f]"
    return re.sub(forbidden, " ", _bytes(rng, text.encode()).decode("latin-1"))[:4000].strip()


def _document(rng: random.Random) -> tuple[str, str]:
    """JSON or JSON Lines around photos, and its content type."""

    def photo() -> str:
        data = rng.choice(FILES)
        return base64.b64encode(data if rng.random() < 0.5 else _bytes(rng, data)).decode()

    entries = [rng.choice(({"image": photo()}, {"b64": photo()}, photo())) for _ in range(rng.choice((1, 1, 2, 3)))]
    if rng.random() < 0.4:
        return _text(rng, "\n".join(json.dumps(entry) for entry in entries)), "application/jsonlines"
    shape = rng.choice((entries, {"instances": entries}, entries[0]))
    return _text(rng, json.dumps(shape)), "application/json"


def make(number: int) -> Case:
    """The case of that number."""
    rng = random.Random(number)
    path, headers = "/invocations", {}
    match rng.choice("ppppjjjh"):
        case "p":
            body, kind = _bytes(rng, rng.choice(FILES)), rng.choice(TYPES[:2])
        case "j":
            text, kind = _document(rng)
            body = text.encode("utf-8", "replace")
        case _:
            body, kind = rng.choice(FILES), _words(rng, rng.choice(TYPES))
            asked = _words(rng, rng.choice(OPTIONS).replace(",", "&").replace("trace=7; ", ""))
            path += f"?{quote(asked, safe='=,;&%')}" if rng.random() < 0.7 else ""
    if rng.random() < 0.3:
        headers["Accept"] = _words(rng, rng.choice(ACCEPTS))
    if rng.random() < 0.3:
        headers["X-Amzn-SageMaker-Custom-Attributes"] = _words(rng, rng.choice(OPTIONS))
    return Case(path, {"Content-Type": kind, **headers}, body)


def send(connection: http.client.HTTPConnection, case: Case) -> str:
    """Nothing where the answer is as it should be, else what it is."""
    try:
        connection.request("POST", case.path, case.body, {k: v.encode("latin-1") for k, v in case.headers.items()})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return repr(error)
    good = answer.status // 100 in (2, 4) and b"Traceback" not in body
    return "" if good else f"{answer.status} {body[:300]!r}"


def send_all(port: int, numbers: range) -> list[str]:
    """The failures among some cases, sent over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    failures = []
    for number in numbers:
        case = make(number)
        wrong = send(connection, case)
        if wrong:
            failures.append(f"KENNEL_MUTATION={number}: {wrong} to {case}")
    connection.close()
    return failures


def test_a_case_follows_from_its_number():
    once, again = ([make(number) for number in range(20)] for _ in range(2))
    assert once == again
    assert len({case.body for case in once}) > 10


def test_mutated_requests_are_answered_and_the_workers_live(endpoint, photo):
    before = {process.pid: process.memory_info().rss for process in endpoint.scripts()}
    first, count = (int(ONLY), 1) if ONLY else (0, COUNT)
    parts = [range(first + at, first + count, CONNECTIONS) for at in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        failures = [line for part in threads.map(lambda part: send_all(endpoint.port, part), parts) for line in part]
    assert not failures, "\n".join([f"{len(failures)} of {count}", *failures[:10]])
    after = {process.pid: process.memory_info().rss for process in endpoint.scripts()}
    assert after.keys() == before.keys(), endpoint.log
    assert max(after[pid] - before[pid] for pid in before) < GROWTH
    assert endpoint.invoke(photo("blue"))[1]["predictions"][0]["label"] == "blue"
