"""A user's inference.py: found, imported, asked; what it leaves out, and every way in which it can be wrong."""

import asyncio
import base64
import gzip
import io
import json
import logging
import os
import re
import zipfile

import numpy as np
import pytest

from kennel.errors import UserError
from kennel_serve import server, settings
from kennel_serve.worker import handler, user_code

PNG = {"Content-Type": "image/png"}
OWN_MODEL = "def model_fn(model_dir):\n    return model_dir\n"
OWN_INPUT = "def input_fn(body, content_type):\n    return body\n"
OWN_PREDICT = "def predict_fn(data, model):\n    return data\n"


def test_all_functions_are_the_users(worker, base, ask):
    context = worker(
        "def model_fn(model_dir, context):\n    return [model_dir, context.system_properties['model_dir']]\n"
        "def input_fn(body, content_type, context):\n"
        "    return [body, content_type, context.get_request_header(0, 'X-Amzn-SageMaker-Custom-Attributes')]\n"
        "def predict_fn(data, model):\n    return data + model\n"
        "def output_fn(prediction, accept, context=None):\n"
        "    context.set_response_status(202)\n"
        "    return repr([*prediction, accept]), 'text/x-list'\n",
        own_model=True,
    )
    headers = {"Content-Type": "text/x-any; charset=x", "x-amzn-sagemaker-custom-attributes": "a=b", "Accept": "*/*"}
    [(status, body, kind)] = ask(context, (b"\xff", headers))
    folder = str(base / "model")
    assert (status, kind) == (202, "text/x-list")
    assert body.decode() == repr([b"\xff", "text/x-any; charset=x", "a=b", folder, folder, "application/json"])


@pytest.mark.parametrize(
    ("code", "label"),
    [
        ("def predict_fn(photos, model):\n    return model.predict(photos[:, ::-1].copy())\n", "blue"),
        ("def input_fn(body, content_type):\n    import numpy\n"
         "    return numpy.full((1, 3, 32, 32), [[[[0]], [[9]], [[0]]]], 'uint8')\n", "green"),
        ("def model_fn(model_dir):\n    return Model()\n"
         "class Model:\n    def predict(self, photos):\n        import numpy\n"
         "        return numpy.array([[0.2, 0.2, 0.6]], 'float32')\n", "blue"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_ours(worker, photo, code, label, ask):
    headers = {"X-Amzn-SageMaker-Custom-Attributes": "top_k=1"}
    [(status, body, kind)] = ask(worker(code), (photo("red"), {**PNG, **headers}))
    assert (status, kind) == (200, "application/json")
    assert [row["label"] for row in json.loads(body)["predictions"]] == [label]


def test_output_fn_gets_our_probabilities(worker, photo, ask):
    context = worker("def output_fn(shares, accept):\n    return str(shares.argmax(axis=1).tolist())\n")
    assert ask(context, (photo("blue"), {**PNG, "Accept": "text/plain"})) == [(200, b"[2]", "text/plain")]


def test_transform_fn_gets_our_model(worker, ask):
    context = worker(
        "import numpy\n"
        "def transform_fn(model, body, content_type, accept):\n"
        "    photos = numpy.array(eval(body), 'uint8').reshape(1, 3, 1, 1).repeat(32, 2).repeat(32, 3)\n"
        "    return model.serving.class_names[model.predict(photos).argmax()]\n"
    )
    [first, second] = ask(context, (b"[9, 0, 0]", {"Content-Type": "text/csv"}), (b"[0, 9, 0]", PNG))
    assert first == (200, b"red", "application/json")
    assert second == (200, b"green", "application/json")


def test_hooks_round_the_loading(worker, base, ask):
    context = worker(
        "calls = []\n"
        "def pre_model_fn(model_dir):\n    calls.append(('before', model_dir))\n"
        "async def model_fn(model_dir):\n    return 'model'\n"
        "def model_warmup_fn(model_dir, model, context):\n    calls.append((model, model_dir))\n"
        "def transform_fn(model, body, content_type, accept):\n    return calls\n",
        own_model=True,
    )
    folder = str(base / "model")
    [(_, body, _)] = ask(context, (b"", {}))
    assert json.loads(body) == [["before", folder], ["model", folder]]


@pytest.mark.parametrize(("kind", "expected"), [("application/json", str), ("text/csv", str), ("image/png", bytes)])
def test_json_and_csv_are_text(worker, kind, expected, ask):
    code = OWN_MODEL + OWN_PREDICT + "def input_fn(body, content_type):\n    return type(body).__name__\n"
    [(_, body, _)] = ask(worker(code, own_model=True), (b"1", {"Content-Type": kind}))
    assert body.decode() == expected.__name__


def test_text_that_is_none(worker, ask):
    context = worker(OWN_MODEL + OWN_INPUT + OWN_PREDICT, own_model=True)
    [(status, body, _)] = ask(context, (b"\xff", {"Content-Type": "text/csv"}))
    assert (status, json.loads(body)) == (400, {"error": "the body is not UTF-8: encode it so"})


@pytest.mark.parametrize(
    ("prediction", "accept", "body", "kind"),
    [
        ("'text'", "text/html", b"text", "text/html"),
        ("b'bytes'", "image/*", b"bytes", "application/json"),
        ("(bytearray(b'both'), 'a/b')", "text/csv", b"both", "a/b"),
        ("{'a': numpy.float32(0.5), 'b': numpy.arange(2)}", "text/csv", b'{"a": 0.5, "b": [0, 1]}', "application/json"),
        ("[1, None]", "*/*", b"[1, null]", "application/json"),
        ("[[1, 2], [3, 4]]", "text/csv", b"1,2\n3,4\n", "text/csv"),
        ("['cat', 'dog']", "text/csv", b"cat\ndog\n", "text/csv"),
        ("[[1], [2, 3]]", "text/csv", b"[[1], [2, 3]]", "application/json"),
        ("[1, None]", "application/x-npy", b"[1, null]", "application/json"),  # no pickle
        ("numpy.arange(4).reshape(2, 2)", "application/json", b"[[0, 1], [2, 3]]", "application/json"),
        ("numpy.arange(4).reshape(2, 2)", "image/png, text/csv;q=0.5", b"0,1\n2,3\n", "text/csv"),
        ("numpy.array([[5.0, -1.0, 0.5]])", "*/*", b"[[5.0, -1.0, 0.5]]", "application/json"),  # no probabilities
    ],
)
def test_what_predict_fn_may_give(worker, photo, prediction, accept, body, kind, ask):
    context = worker(f"import numpy\ndef predict_fn(data, model):\n    return {prediction}\n")
    assert ask(context, (photo(), {**PNG, "Accept": accept})) == [(200, body, kind)]


def test_an_array_as_numpys_file(worker, photo, ask):
    context = worker("import numpy\ndef predict_fn(data, model):\n    return numpy.arange(3)\n")
    found = ask(context, (photo(), {**PNG, "Accept": "application/x-npy"}), (photo(), {**PNG, "Accept": "image/png"}))
    assert np.load(io.BytesIO(found[0][1])).tolist() == [0, 1, 2]
    assert (found[1][0], "image/png" in found[1][1].decode()) == (406, True)


FAULTS = """
from sagemaker_inference.errors import BaseInferenceToolkitError
class Teapot(BaseInferenceToolkitError):
    def __init__(self, status):
        super().__init__(status, "short and\\nstout", "teapot")
def predict_fn(data, model):
    return data
def model_fn(model_dir):
    return {}
def input_fn(body, content_type):
    return exec(body)
"""


def test_errors_hurt_their_request_only(worker, monkeypatch, caplog, ask):
    monkeypatch.setattr(handler._log, "propagate", True)  # where caplog listens
    codes = [
        "raise ValueError('secret')",
        "raise Teapot(418)",
        "raise Teapot(102)",
        "raise Teapot('x')",
        "1",
        "exit(3)",
    ]
    found = ask(worker(FAULTS, own_model=True), *((code.encode(), PNG) for code in codes))
    assert [status for status, _, _ in found] == [500, 418, 500, 500, 200, 500]
    failed = {"error": "inference.py's input_fn failed: the endpoint's log says why"}
    assert [json.loads(body) for _, body, _ in found] == [
        failed,
        *[{"error": "short and stout"}] * 3,
        None,
        failed,
    ]
    assert "ValueError: secret" in caplog.text


def test_what_would_cost_the_model_server_the_worker(worker, ask):
    """Lengths over HTTP: 65,536 of a header, 100 MB of an answer."""
    code = "def transform_fn(model, body, content_type, accept, context):\n    return eval(body)\n"
    name = "X-Amzn-SageMaker-Custom-Attributes"
    bodies = [
        f"(context.set_response_header(0, '{name}', 'x' * 70_000), (b'y', 'é' * 70_000))[1]",
        "bytes((100 << 20) + 1)",
        "bytes(100 << 20)",
    ]
    context = worker(OWN_MODEL + code, own_model=True)
    first, second, third = ask(context, *((body.encode(), {"Content-Type": "text/x"}) for body in bodies))
    assert first == (200, b"y", "?" * 1024)
    assert context.get_response_headers(0)[name.lower()] == "x" * 1024
    sentence = "the answer is larger than 100 MB: split the request, or ask for less"
    assert (second[0], json.loads(second[1])) == (413, {"error": sentence})
    assert (third[0], len(third[1])) == (200, 100 << 20)


def test_an_answer_that_cannot_be_written(worker, photo, monkeypatch, caplog, ask):
    monkeypatch.setattr(handler._log, "propagate", True)
    [(status, body, _)] = ask(worker("def output_fn(prediction, accept):\n    return object()\n"), (photo(), PNG))
    assert (status, json.loads(body)) == (500, {"error": "the request failed: the endpoint's log says why"})
    assert "let output_fn give str or bytes" in caplog.text


@pytest.mark.parametrize(
    ("code", "own_model", "words"),
    [
        ("def predict_fn(\n", False, "cannot be imported: inference.py:1: '(' was never closed"),
        (
            "import json\nimport no_such_package.sub\n",
            False,
            "inference.py:2: there is no module 'no_such_package': list",
        ),
        ("import helpes\n", False, "inference.py:1: there is no module 'helpes': did you mean 'helpers'?"),
        ("import helpers\nhelpers.fails()\n", False, "helpers.py:2: KeyError: 'no'"),
        ("from helpers import nothing\n", False, "inference.py:1: ImportError: cannot import name 'nothing'"),
        ("import helpers.sub\n", False, "inference.py:1: ModuleNotFoundError: No module named 'helpers.sub'"),
        ("import json\njson.loads('{')\n", False, "inference.py:2: JSONDecodeError: Expecting property name"),
        ("import sys\nsys.exit(4)\n", False, "inference.py:2: SystemExit: 4"),
        (OWN_PREDICT + "transform_fn = predict_fn\n", False, "defines transform_fn, which does it all, and predict_fn"),
        ("predict_fn = 7\n", False, "predict_fn is no function: define predict_fn(data, model)"),
        ("def predict_fn(data):\n    return 0\n", False, "predict_fn takes (data): define predict_fn(data, model)"),
        (OWN_MODEL, False, "defines no predict_fn, and its model_fn gives a model without a method predict"),
        (
            "def model_fn(model_dir):\n    open('/no/such')\n",
            False,
            "model_fn failed: inference.py:2: FileNotFoundError",
        ),
        (
            "def pre_model_fn(model_dir):\n    {}[0]\n",
            False,
            "pre_model_fn failed: inference.py:2: KeyError: 0: fix it",
        ),
        (
            "def model_warmup_fn(model):\n    pass\n",
            False,
            "model_warmup_fn takes (model): define model_warmup_fn(model_dir",
        ),
        (
            OWN_MODEL + "async def output_fn(prediction, accept):\n    yield b''\n",
            False,
            "output_fn is an asynchronous generator: return one answer in place of yield",
        ),
    ],
)
def test_a_worker_says_why_it_cannot_start(worker, base, code, own_model, words):
    with pytest.raises(UserError) as raised:
        worker(code, own_model, helpers="def fails():\n    {}['no']\n")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (base / "private" / handler.REASON).read_text() == str(raised.value)


def test_a_file_without_functions_changes_nothing_and_is_named(worker, photo, caplog, monkeypatch, ask):
    monkeypatch.setattr(handler._log, "propagate", True)
    [(status, body, _)] = ask(worker("x = 1\n"), (photo("green"), PNG))
    assert (status, json.loads(body)["predictions"][0]["label"]) == (200, "green")
    assert "inference.py defines none of model_fn" in caplog.text


def test_a_model_of_ours_is_served_where_an_sdk_names_a_file_that_is_not_there(tmp_path, caplog):
    (tmp_path / "manifest.json").touch()
    with caplog.at_level("INFO"):
        assert user_code.find(tmp_path, "inference.py") is None
    assert "SAGEMAKER_PROGRAM=inference.py: the model has no such file" in caplog.text
    with pytest.raises(UserError, match=r"SAGEMAKER_PROGRAM=mine.py is in none of"):
        user_code.find(tmp_path, "mine.py")


def test_where_the_file_is_looked_for(tmp_path):
    model, sent = tmp_path / "model", tmp_path / "sent"
    for folder in (model / "code", sent):
        folder.mkdir(parents=True)
    assert user_code.find(model) is None
    for folder in (model, model / "code", sent):
        (folder / "inference.py").touch()
        assert user_code.find(model, "", f"file://{sent}") == folder / "inference.py"
    assert user_code.find(model, "", "s3://bucket/code") == model / "code" / "inference.py"
    (model / "theirs.py").touch()
    for program in ("theirs.py", "theirs"):
        assert user_code.find(model, program) == model / "theirs.py"
    with pytest.raises(UserError, match=r"SAGEMAKER_PROGRAM=absent.py is in none of .*/model/code.*: pack it"):
        user_code.find(model, "absent.py")
    with pytest.raises(UserError, match=r"absent.py is in none of .*: name the Model's source_dir as well"):
        user_code.find(model, "absent.py", "s3://bucket/code.tar.gz")


def test_a_program_by_the_environment(monkeypatch, base):
    sent = base / "sent"
    sent.mkdir()
    (sent / "theirs.py").write_text(OWN_PREDICT)
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
    monkeypatch.setenv("SAGEMAKER_PROGRAM", "theirs.py")
    monkeypatch.setenv("SAGEMAKER_SUBMIT_DIRECTORY", str(sent))
    assert server.check(settings.read(), 0, base / "model").program == str(sent / "theirs.py")
    monkeypatch.setenv("SAGEMAKER_PROGRAM", "")  # what the SDK sets without one
    monkeypatch.setenv("SAGEMAKER_SUBMIT_DIRECTORY", "")
    assert server.check(settings.read(), 0, base / "model").program == ""


@pytest.mark.parametrize(("gpus", "engine", "expected"), [(0, "none", (4, 1, 0)), (2, "torch", (2, 1, 0))])
def test_a_worker_for_each_gpu_or_cpu(gpus, engine, expected):
    chosen, memory = settings.read(), 64 << 30
    limits = settings.limits(chosen, 4, gpus, memory)
    share = settings.share(chosen, limits, engine, 100 << 20, memory, own_code=True)
    assert (share.workers, share.batch_size, share.batch_delay_ms) == expected


def test_requirements_that_are_not_installed(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    program = tmp_path / "inference.py"
    (tmp_path / "requirements.txt").write_text("./absent-1.0-py3-none-any.whl\n")
    with caplog.at_level(logging.WARNING):
        asyncio.run(user_code.install(program, wanted=False))
    assert "requirements.txt is not installed: set KENNEL_INSTALL_REQUIREMENTS=true" in caplog.text
    with pytest.raises(UserError, match=r"requirements.txt cannot be installed: pip says .*absent-1.0"):
        asyncio.run(user_code.install(program, wanted=True))


def test_a_requirement_that_cannot_be_built(tmp_path, caplog, monkeypatch):
    """Its own words come first, pip's error in the middle, pip's hints last."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # which means yes
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "setup.py").write_text("raise SystemExit('out of clay')\n")
    (tmp_path / "requirements.txt").write_text("./broken\n")
    with pytest.raises(UserError, match=r"pip says 'error: sub.* error: metadata-generation-failed': fix it"):
        asyncio.run(user_code.install(tmp_path / "inference.py", wanted=True))
    assert "out of clay" in caplog.text


TABLE = """
import logging, os, pathlib, time, tiny
from sagemaker_inference.errors import GenericInferenceToolkitError
place = pathlib.Path(os.environ["PIP_TARGET"])
(place / "installing").mkdir()  # fails where another worker is here at the same time
(place / f"package{os.getpid()}").mkdir()
time.sleep(0.2)
(place / "installing").rmdir()
async def model_fn(model_dir):
    print("printed while loading")
    time.sleep(4.5)  # Java is not asked for 5 s, and does not hang
    return tiny.FACTOR
async def input_fn(body, content_type):
    if content_type != "text/csv":
        raise ValueError("only CSV")
    if not body:
        raise GenericInferenceToolkitError(422, "a row, please")
    return [float(cell) for cell in body.split(",")]
def predict_fn(data, model, context):
    print("printed while predicting")
    logging.getLogger("mine").info("logged while predicting")
    for name, value in ("Custom-Attributes", "trace=ü"), ("New-Session-Id", "n"), ("Closed-Session-Id", "c\\r\\nd: e"):
        context.set_response_header(0, "X-Amzn-SageMaker-" + name, value)
    context.set_response_header(0, "Content-Length", "1")
    return [model * cell for cell in data]
async def output_fn(prediction, accept, context):
    if accept == "text/x-headers":
        names = "Custom-Attributes", "Inference-Id", "Session-Id", "Target-Model"
        asked = [context.get_request_header(0, "X-Amzn-SageMaker-" + name) for name in names]
        others = "x-mine", "CONTENT-encoding", "x-kennel-sample", "x-long"
        return repr(asked + [context.get_request_header(0, name) for name in others])
    return ",".join(map(str, prediction)), "text/csv; charset=utf-8; name=café\\x00\\r\\nx: y"
"""


def test_a_users_own_model_without_a_manifest(tmp_path, running):
    """Over HTTP, with a package of its own, two workers, and a sample photo that it refuses at the start."""
    code = tmp_path / "model" / "code"
    code.mkdir(parents=True)
    (code / "inference.py").write_text(TABLE)
    (tmp_path / "model" / "weights.pkl").write_bytes(b"theirs")
    (code / "requirements.txt").write_text("./tiny-1.0-py3-none-any.whl\n")
    with zipfile.ZipFile(code / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "FACTOR = 2\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    place = str(tmp_path / "packages")  # not this test's own environment
    path = os.pathsep.join([place, *filter(None, [os.environ.get("PYTHONPATH")])])
    pip = {"PIP_NO_INDEX": "1", "PIP_TARGET": place, "PYTHONPATH": path, "KENNEL_INSTALL_REQUIREMENTS": "true"}
    with running(tmp_path, PYTHONDONTWRITEBYTECODE="", SAGEMAKER_MODEL_SERVER_WORKERS="2", **pip) as server:
        server.wait_ready()
        workers = server.scripts()
        assert server.log.count("inference.py changes the installed packages while it is imported: list in") == 2
        refused = (
            r"inference.py answers a sample photo .* 500: .*input_fn failed: inference.py:15: ValueError: only CSV"
        )
        assert re.search(refused, server.log)
        before = server.log.count("Traceback")  # of the fixture's own photo
        csv = {"Content-Type": "text/csv"}
        status, body, headers = server.request("POST", "/invocations", b"1,2.5", csv)
        assert (status, body) == (200, b"2.0,5.0")
        assert headers["Content-Type"] == "text/csv; charset=utf-8; name=caf??  x: y"
        ids = [headers[f"X-Amzn-SageMaker-{name}-Id"] for name in ("New-Session", "Closed-Session", "Inference")]
        assert (headers["X-Amzn-SageMaker-Custom-Attributes"], *ids) == ("trace=?", "n", "c  d: e", None)
        sent = {f"X-Amzn-SageMaker-{name}": name for name in ("Custom-Attributes", "Inference-Id", "Session-Id")}
        others = {"X-Mine": "a", "Content-Encoding": "gzip", "X-Kennel-Sample": "b", "X-Long": "c" * 4096}
        asked = {**csv, "Accept": "text/x-headers", **sent, **others}
        status, body, _ = server.request("POST", "/invocations", gzip.compress(b"1"), asked)
        assert (status, body.decode()) == (200, repr([*sent.values(), None, "a", None, None, None]))
        assert server.invoke(b"", "text/csv") == (422, {"error": "a row, please"})
        assert server.invoke(b"x")[0] == 500
        assert server.invoke(b"x", "application/x-www-form-urlencoded")[0] == 415
        for words in ("ValueError: only CSV", "printed while loading", "printed while pred", "logged while pred"):
            assert words in server.log
        assert (before, server.log.count("Traceback")) == (1, 2)
        assert server.scripts() == workers
        assert "the model server does not answer" not in server.log
    assert not list(code.glob("__pycache__"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_package\n", "serve: inference.py cannot be imported: inference.py:1: there is no module"),
        ("def predict_fn(data, model):\n    1 / 0\n", "serve: the first prediction failed (500 "),
    ],
)
def test_a_start_that_fails(base, running, code, words):
    (base / "model" / "inference.py").write_text(code)
    with running(base) as server:
        assert server.wait_exit() == 1
        assert server.log.splitlines()[-1].startswith(words), server.log
        assert server.left_behind() == []


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("def predict_fn(data, model):\n    return model.predict(data)\n", 200),
        ("def predict_fn(data, model):\n    return data.mean(axis=(1, 2, 3))\n", 400),  # an answer without such a place
        ("def output_fn(prediction, accept):\n    return 'ours'\n", 400),
    ],
)
def test_a_bad_photo_of_a_list_has_an_error_in_its_place_where_the_answer_has_one(worker, ask, photo, code, status):
    entries = [base64.b64encode(body).decode() for body in (photo("red"), b"no photo", photo("blue"))]
    headers = {"Content-Type": "application/json", "X-Amzn-SageMaker-Custom-Attributes": "on_error=line;top_k=1"}
    [(answered, body, _)] = ask(worker(code), (json.dumps(entries).encode(), headers))
    assert answered == status, body
    if status == 200:
        red, bad, blue = json.loads(body)["predictions"]
        assert (red[0]["label"], blue[0]["label"]) == ("red", "blue")
        assert bad["error"].startswith("instances[1]: not a readable photo")
    else:
        assert json.loads(body)["error"].startswith("instances[1]: not a readable photo")
