"""Requests over real HTTP through the front door, the model server and a worker."""

import base64
import gzip
import json
import socket

import pytest

LIMIT = 2 * 1024 * 1024


def test_ready_means_ready(endpoint):
    assert set(endpoint.before) <= {None, 503}
    assert endpoint.first == 200


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("color", ["red", "blue"])
def test_a_photo(endpoint, photo, format, color):
    status, answer = endpoint.invoke(photo(color, format), f"image/{format.lower()}")
    assert status == 200
    rows = answer["predictions"]
    assert rows[0]["label"] == color
    assert {row["label"] for row in rows} == {"red", "green", "blue"}
    assert sum(row["probability"] for row in rows) == pytest.approx(1, abs=1e-5)


def test_no_content_type_is_a_photo(endpoint, photo):
    status, body, headers = endpoint.request("POST", "/invocations", photo("blue"))
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body)["predictions"][0]["label"] == "blue"


@pytest.mark.parametrize("size", [1, 33, 500, 1500])
def test_bodies_arrive_unchanged(endpoint, photo, size):
    """JSON: one byte more or less, and it would not parse."""
    body = json.dumps({"instances": [base64.b64encode(photo("red", "PNG", (size, 1 + size // 2))).decode()] * 3})
    status, answer = endpoint.invoke(body.encode(), "application/json", Accept="application/json, text/csv;q=0.1")
    assert status == 200
    assert [rows[0]["label"] for rows in answer["predictions"]] == ["red"] * 3


def test_a_chunked_body(endpoint, photo):
    body = photo("blue", "BMP", (200, 200))
    parts = (body[at : at + 5000] for at in range(0, len(body), 5000))
    status, answer, _ = endpoint.request("POST", "/invocations", parts, {"Content-Type": "image/bmp"})
    assert status == 200
    assert json.loads(answer)["predictions"][0]["label"] == "blue"


def test_top_k_by_header_and_by_query(endpoint, photo):
    name = {"X-Amzn-SageMaker-Custom-Attributes": "trace=7, top_k=2"}
    _, body, _ = endpoint.request("POST", "/invocations", photo(), {"Content-Type": "image/jpeg", **name})
    assert len(json.loads(body)["predictions"]) == 2
    _, body, _ = endpoint.request("POST", "/invocations?top_k=1", photo(), name)
    assert len(json.loads(body)["predictions"]) == 1


def test_json_lines_and_csv(endpoint, photo):
    lines = "".join(json.dumps({"image": base64.b64encode(photo(color)).decode()}) + "\n" for color in ("red", "blue"))
    kind = {"Content-Type": "application/jsonlines"}
    status, body, headers = endpoint.request("POST", "/invocations?top_k=1", lines.encode(), kind)
    assert (status, headers["Content-Type"]) == (200, "application/jsonlines")
    assert [json.loads(line)["predictions"][0]["label"] for line in body.splitlines()] == ["red", "blue"]
    kind = {**kind, "Accept": "text/csv", "X-Amzn-SageMaker-Custom-Attributes": "top_k=1;threshold=0.9"}
    status, body, headers = endpoint.request("POST", "/invocations", lines.encode(), kind)
    assert (status, headers["Content-Type"]) == (200, "text/csv")
    assert [line.split(",")[0] for line in body.decode().splitlines()] == ["red", "blue"]
    torn = lines.encode() + b'{"image": "eA=="}'
    assert endpoint.request("POST", "/invocations", torn, kind)[0] == 400
    status, body, _ = endpoint.request(
        "POST", "/invocations?top_k=1&on_error=line", torn, {"Content-Type": kind["Content-Type"]}
    )
    found = [json.loads(line) for line in body.splitlines()]
    assert [line.get("predictions", [{}])[0].get("label") for line in found] == ["red", "blue", None]
    assert found[2]["error"].startswith("line 3: not a readable photo")


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/invocations", b"not a photo", {"Content-Type": "image/jpeg"}, 400),
        ("POST", "/invocations", b"", {"Content-Type": "image/jpeg"}, 400),
        ("POST", "/invocations", b"{", {"Content-Type": "application/json"}, 400),
        ("POST", "/invocations?top_k=no%0D%0Ax", b"x", {}, 400),
        ("POST", "/invocations", b"a,b", {"Content-Type": "text/csv"}, 415),
        ("POST", "/invocations", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ("POST", "/invocations", b"--x--", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ("POST", "/invocations?model_name=other&body=x", b"x", {}, 400),  # options of the model server's own
        ("POST", "/invocations", b"x", {"Content-Type": "image/jpeg", "Accept": "text/plain"}, 406),
        ("POST", "/invocations", b"x", {"Accept": "\xff" * 3000}, 406),
        ("POST", "/invocations", b"no gzip", {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}, 400),
        ("POST", "/invocations", b"x", {"Content-Type": "image/jpeg", "Content-Encoding": "br"}, 415),
        ("POST", "/invocations", b"x", {"Content-Type": "application/json", "Content-Encoding": "ZSTD"}, 415),
        ("POST", "/invocations", b"x", {"Content-Type": "application/x-npy", "Content-Encoding": "gzip, br"}, 415),
        ("POST", "/invocations", b"x" * (LIMIT + 1), {"Content-Type": "image/jpeg"}, 413),
        ("POST", "/invocations", b"x" * LIMIT, {"Content-Type": "image/jpeg"}, 400),  # read, and found no photo
        ("GET", "/invocations", None, {}, 405),
        ("POST", "/ping", b"", {}, 405),
        ("GET", "/models", None, {}, 404),
        ("GET", "/", None, {}, 404),
    ],
)
def test_refusals_are_one_sentence(endpoint, method, path, body, headers, status):
    code, answer, got = endpoint.request(method, path, body, headers)
    assert code == status
    assert got["Content-Type"] == "application/json"
    assert "Server" not in got
    row = json.loads(answer)
    assert list(row) == ["error"]
    for word in ("Traceback", "Exception", ".py", "/tmp", "\n"):
        assert word not in row["error"]
    assert endpoint.ping() == 200


def test_a_chunked_body_over_the_limit(endpoint):
    parts = (b"x" * 100_000 for _ in range(22))
    code, answer, _ = endpoint.request("POST", "/invocations", parts, {"Content-Type": "image/jpeg"})
    assert code == 413
    assert "2 MB" in json.loads(answer)["error"]


def test_the_log_is_a_start_and_a_json_line_for_each_request(endpoint, photo):
    first, second, *others = endpoint.log.splitlines()  # the others: what other tests asked, and did to its workers
    assert "3 classes, engine fp32, 2 worker(s), port" in first
    assert second.startswith("ready after")
    assert endpoint.invoke(b"not a photo", X_Amzn_SageMaker_Inference_Id="mine")[0] == 400
    body = photo()
    assert endpoint.invoke(body)[0] == 200
    rows = [json.loads(line) for line in endpoint.log.splitlines()[2 + len(others) :]]
    refused, served = rows[-2:]
    assert (refused["id"], refused["status"], refused["photos"]) == ("mine", 400, 0)
    assert (served["path"], served["status"], served["photos"], served["bytes"]) == ("/invocations", 200, 1, len(body))
    assert 0 < served["decode_ms"] + served["inference_ms"] + served["queue_ms"] <= served["ms"]
    assert "/ping" not in {row["path"] for row in rows}


def test_a_request_that_is_no_http(endpoint):
    with socket.create_connection(("127.0.0.1", endpoint.port), 60) as client:
        client.sendall(b"GET / HTTP/9\r\nfoo\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(10_000), b""))
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert b"Traceback" not in answer
    assert "Traceback" not in endpoint.log


def test_a_bomb_in_gzip(endpoint):
    body = gzip.compress(b"0" * (LIMIT + 1))
    headers = {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}
    assert endpoint.request("POST", "/invocations", body, headers)[0] == 413
