"""Probabilities to bytes: what a client may ask for, and what it gets."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kennel_serve.formats import response_body
from kennel_serve.formats.response_body import CSV, JSON, JSON_LINES, Options, RequestError

LINES = JSON_LINES[0]
CLASSES = ("a", "b", 'c,"é"')
PROBABILITIES = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], np.float32)


def rows(kind, is_list=True, **asked):
    body, content_type = response_body.write(PROBABILITIES, CLASSES, Options(kind=kind, **asked), is_list)
    assert content_type == kind
    return body


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, JSON),
        ("", JSON),
        (" , ", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("Application/JSON", JSON),
        ("text/html, image/gif, *; q=.2, */*; q=.2", JSON),
        ("text/csv", CSV),
        ("text/*", CSV),
        ("TEXT/CSV; charset=utf-8", CSV),
        ("text/csv, application/json;q=0.9", CSV),
        ("text/csv;q=0.5, application/json;q=0.9", JSON),
        ("text/csv, application/json", JSON),  # no preference is ours
        ("*/*, application/json;q=0", LINES),
        ("*/*;q=0.1, text/csv;q=0.2, image/*", CSV),
        ("application/json;q=nonsense, text/csv;q=0.9", JSON),
        *((kind, kind) for kind in JSON_LINES),
    ],
)
def test_accept(accept, kind):
    assert response_body.options(accept, None).kind == kind
    response_body.check_accept(accept)


@pytest.mark.parametrize("accept", ["text/plain", "image/*", "application/x-npy", "application/json;q=0", "*/*;q=0"])
def test_accept_that_leaves_all_of_ours_out(accept):
    with pytest.raises(RequestError, match="application/json, application/jsonlines, text/csv or") as raised:
        response_body.check_accept(accept)
    assert raised.value.status_code == 406


@pytest.mark.parametrize("sent", JSON_LINES)
@pytest.mark.parametrize(("accept", "kind"), [(None, None), ("*/*", None), (JSON, JSON), ("text/csv", CSV)])
def test_json_lines_are_answered_in_kind_where_nothing_else_is_asked_for(sent, accept, kind):
    assert response_body.options(accept, None, f"{sent}; charset=utf-8").kind == (kind or sent)


def test_the_endpoints_own_accept_is_for_requests_without_one():
    assert response_body.options(None, None, LINES, "text/csv").kind == CSV
    assert response_body.options(JSON, None, LINES, "text/csv").kind == JSON
    assert response_body.options(None, None, LINES, JSON).kind == LINES  # the variable is JSON by default


@pytest.mark.parametrize(
    ("attributes", "top_k", "threshold"),
    [
        (None, 5, 0),
        ("", 5, 0),
        ("trace=1", 5, 0),
        ("trace=1, top_k=3", 3, 0),
        ("TOP_K=3; Threshold=0.1;;x", 3, 0.1),
        ("top_k=2,top_k=4", 2, 0),
        ("threshold=1", 5, 1),
        ("threshold=1e-3", 5, 0.001),
        ("all", None, 0),
        ("all=True,threshold=.5", None, 0.5),
        ("all=false", 5, 0),
        ("all,top_k=2", None, 0),
        ("top_k=2,all", 2, 0),
        ("all=0,all=1,top_k=2", 2, 0),
    ],
)
def test_options(attributes, top_k, threshold):
    found = response_body.options(None, attributes)
    assert (found.top_k, found.threshold) == (top_k, threshold)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("top_k", text) for text in ("0", "-1", "x", "", "1.5", "9" * 30, "²")),
        *(("threshold", text) for text in ("-0.1", "1.1", "x", "", "nan", "inf", "0_1", "٠")),
        *(("all", text) for text in ("2", "maybe")),
        *(("on_error", text) for text in ("", "LINE", "ignore")),
    ],
)
def test_bad_options(name, text):
    for ask in (lambda: response_body.options(None, f"{name}={text}"), lambda: response_body.asked([(name, text)], "")):
        with pytest.raises(RequestError, match=f"^{name}=.*: write ") as raised:
            ask()
        assert raised.value.status_code == 400


@pytest.mark.parametrize(
    ("query", "attributes", "expected"),
    [
        ([], "top_k=2", Options(top_k=2)),
        ([("top_k", "3")], "top_k=2,threshold=0.5", Options(top_k=3, threshold=0.5)),
        ([("top_k", "3")], "all", Options(top_k=3)),
        ([("all", "")], "top_k=2", Options(top_k=None)),
        ([("all", "false")], "all", Options()),
        ([("on_error", "line")], "on_error=request", Options(on_error="line")),
        ([("threshold", " 0.2 ")], "trace=" + "x" * 5000, Options(threshold=0.2)),
    ],
)
def test_the_query_wins(query, attributes, expected):
    said = response_body.asked(query, attributes)
    assert said.endswith(attributes)  # a user's own code may read what is not ours
    assert response_body.options(None, said) == expected


@pytest.mark.parametrize("name", ["topk", "TOP_K", "", "é\r\n"])
def test_an_unknown_option_in_the_query_is_refused_by_name(name):
    with pytest.raises(RequestError, match=r"no option: there are top_k, threshold, all, on_error$") as raised:
        response_body.asked([("top_k", "1"), (name, "1")], "")
    assert raised.value.status_code == 400


@given(st.text(max_size=50), st.text(max_size=50), st.sampled_from([None, JSON, LINES]))
def test_any_headers_are_options_or_a_request_error(accept, attributes, content_type):
    kind, status = JSON, 400
    try:
        kind = response_body.options(accept, attributes, content_type).kind
    except RequestError as error:
        status = error.status_code
    assert kind in (JSON, CSV, *JSON_LINES)
    assert status in (400, 406)


def test_json_is_sorted_and_cut():
    one, many = json.loads(rows(JSON, is_list=False, top_k=2)), json.loads(rows(JSON, top_k=9))
    assert one == {"predictions": [{"label": "b", "probability": 0.7}, {"label": CLASSES[2], "probability": 0.2}]}
    labels = [[row["label"] for row in answer] for answer in many["predictions"]]
    assert labels == [["b", CLASSES[2], "a"], ["a", CLASSES[2], "b"]]


@pytest.mark.parametrize("kind", JSON_LINES)
def test_json_lines_are_what_each_photo_alone_would_get(kind):
    body = rows(kind, top_k=1)
    assert body.endswith(b"\n")
    assert [json.loads(line) for line in body.splitlines()] == [
        {"predictions": [{"label": "b", "probability": 0.7}]},
        {"predictions": [{"label": "a", "probability": 0.5}]},
    ]


@pytest.mark.parametrize(
    ("asked", "columns", "first", "second"),
    [
        ({"top_k": 1}, ["label_1", "probability_1"], ["b", "0.7"], ["a", "0.5"]),
        (
            {"top_k": 2},
            ["label_1", "probability_1", "label_2", "probability_2"],
            ["b", "0.7", CLASSES[2], "0.2"],
            ["a", "0.5", CLASSES[2], "0.3"],
        ),
        ({"top_k": 1, "threshold": 0.6}, ["label_1", "probability_1"], ["b", "0.7"], ["", ""]),
        ({"top_k": None}, list(CLASSES), ["0.1", "0.7", "0.2"], ["0.5", "0.2", "0.3"]),
        ({"top_k": None, "threshold": 0.25}, list(CLASSES), ["", "0.7", ""], ["0.5", "", "0.3"]),
    ],
)
def test_csv_is_one_row_a_photo(asked, columns, first, second):
    body = rows(CSV, **asked).decode()
    assert "\r" not in body
    assert body.endswith("\n")
    assert list(csv.reader(io.StringIO(body))) == [first, second]
    named = rows(CSV, header=True, **asked).decode()
    assert list(csv.reader(io.StringIO(named))) == [columns, first, second]


def test_the_header_row_is_asked_for_by_the_types_own_parameter():
    assert response_body.options("text/csv; header=present", None) == Options(kind=CSV, header=True)
    assert not response_body.options("text/csv; header=absent", None).header


@pytest.mark.parametrize("kind", [JSON, LINES])
def test_a_threshold_leaves_out_what_is_shown_below_it(kind):
    probabilities = np.array([[0.3, 0.7 - 1e-8, 0.0]], np.float32)
    body, _ = response_body.write(probabilities, CLASSES, Options(threshold=0.7, kind=kind), is_list=False)
    assert json.loads(body) == {"predictions": [{"label": "b", "probability": 0.7}]}
    body, _ = response_body.write(probabilities, CLASSES, Options(threshold=0.9, kind=kind), is_list=False)
    assert json.loads(body) == {"predictions": []}


def test_all_is_more_than_the_default():
    many = np.full((1, 9), 1 / 9, np.float32)
    names = tuple("abcdefghi")
    for asked, count in ((Options(), 5), (Options(top_k=None), 9)):
        body, _ = response_body.write(many, names, asked, is_list=False)
        assert len(json.loads(body)["predictions"]) == count


def test_what_is_wrong_with_a_photo_of_a_list_stands_in_its_place():
    errors = ["", "line 2: no base64 photo there"]
    asked = {"class_names": CLASSES, "is_list": True, "errors": errors}
    body, _ = response_body.write(PROBABILITIES[:2], options=Options(top_k=1), **asked)
    good, bad = json.loads(body)["predictions"]
    assert (len(good), bad) == (1, {"error": errors[1]})
    body, _ = response_body.write(PROBABILITIES[:2], options=Options(top_k=1, kind=LINES), **asked)
    good, bad = map(json.loads, body.splitlines())
    assert (len(good["predictions"]), bad) == (1, {"error": errors[1]})
    for all_classes in (Options(top_k=1, kind=CSV), Options(top_k=None, kind=CSV)):
        body, _ = response_body.write(PROBABILITIES[:2], options=all_classes, **asked)
        good, bad = csv.reader(body.decode().splitlines())
        assert any(good)
        assert not any(bad)
        assert len(good) == len(bad)
