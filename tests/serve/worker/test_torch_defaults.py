"""What AWS's PyTorch image does for the functions that an inference.py leaves out, where the model is none of ours."""

import io
import json
import sys

import numpy as np
import pytest
import torch

from kennel.errors import UserError

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
SUMS = [[6.0, 12.0], [15.0, 30.0]]
# A module that shows whether it is in eval mode and may record gradients; it sums each row and doubles the sum.
MODULE = """
import torch
class Sums(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Dropout(0.99)
        self.weights = torch.nn.Parameter(torch.tensor([[1.0, 2.0]] * 3))
    def forward(self, rows):
        assert not torch.is_grad_enabled()
        return self.dropout(rows.float()) @ self.weights
def model_fn(model_dir):
    return {model}
"""
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Sums(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weights", torch.tensor([[1.0, 2.0]] * 3))

    def forward(self, rows):
        return rows.float() @ self.weights


def save(file):
    torch.jit.save(torch.jit.trace(Sums(), torch.ones(1, 3)), file)


def written(rows, kind):
    if kind == NPY:
        file = io.BytesIO()
        np.save(file, np.array(rows))
        return file.getvalue()
    if kind == JSON:
        return json.dumps(rows).encode()
    return "\n".join(",".join(map(str, row)) for row in rows).encode()


def read(body, kind):
    if kind == NPY:
        return np.load(io.BytesIO(body)).tolist()
    return json.loads(body) if kind == JSON else [[float(cell) for cell in row.split(b",")] for row in body.split()]


@pytest.mark.parametrize("files", [["model.pt", "other.pt"], ["only.pth"]])
def test_a_torchscript_file_alone_is_served(worker, base, ask, files):
    for name in files:
        save(base / "model" / name)
    context = worker("", own_model=True)
    for sent in (JSON, CSV, NPY):
        for accept in (JSON, CSV, NPY):
            [(status, body, kind)] = ask(context, (written(ROWS, sent), {"Content-Type": sent, "Accept": accept}))
            assert (status, kind, read(body, kind)) == (200, accept, SUMS)


@pytest.mark.parametrize("model", ["Sums()", "torch.nn.DataParallel(Sums())"])
def test_a_module_is_called_in_eval_mode_without_gradients(worker, ask, model):
    context = worker(MODULE.replace("{model}", model), own_model=True)
    assert ask(context, (written(ROWS, JSON), {"Content-Type": "application/json; charset=utf-8"})) == [
        (200, json.dumps(SUMS).encode(), JSON)
    ]


def test_a_module_gets_our_photos_where_the_model_folder_is_ours(worker, ask, photo):
    code = MODULE.replace("rows.float()", "rows.float().mean((2, 3))").replace("{model}", "Sums()")
    [(status, body, _)] = ask(worker(code), (photo("red"), {"Content-Type": "image/jpeg"}))
    assert (status, json.loads(body)) == (200, [[pytest.approx(254, abs=2), pytest.approx(508, abs=4)]])


def test_functions_of_the_users_between_ours(worker, base, ask):
    save(base / "model" / "model.pt")
    context = worker(
        "import torch\n"
        "def predict_fn(data, model):\n"
        "    assert isinstance(model, torch.jit.ScriptModule) and data.dtype == torch.float32\n"
        "    return model(data).bfloat16(), [1, data.shape]\n",
        own_model=True,
    )
    [(_, body, _)] = ask(context, (written(ROWS, CSV), {"Content-Type": CSV, "Accept": CSV}))
    assert json.loads(body) == [SUMS, [1, [2, 3]]]


def test_a_tensor_of_bfloat16_can_be_written(worker, ask):
    code = "import torch\ndef model_fn(model_dir):\n    return 2\ndef predict_fn(data, model):\n    return {}\n"
    context = worker(code.format("(model * data).bfloat16()"), own_model=True)
    [(status, body, _)] = ask(context, (written(ROWS, CSV), {"Content-Type": CSV}))
    assert (status, json.loads(body)) == (200, [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]])


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([{}]), allow_pickle=True)
    return file.getvalue()


def long():
    """A few bytes whose head promises a terabyte."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 38,)})
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (b"x", "image/png", 415, "'image/png' is not supported: send one of application/json, text/csv, application/x"),
        (b"[1, [2]]", JSON, 400, "the body is no array of numbers as application/json (setting an array element"),
        (b'{"a": 1}', JSON, 400, "not every value is a number"),
        (b'["1", "2"]', JSON, 400, "not every value is a number"),
        (b"[1, null]", JSON, 400, "not every value is a number"),
        (b"[1,", JSON, 400, "no array of numbers"),
        (b"[" * 100_000, JSON, 400, "no array of numbers"),
        (b"", JSON, 400, "it is empty"),
        (b"a,b\n1,2", CSV, 400, "could not convert string 'a'"),
        (b"1,2\n3", CSV, 400, "no array of numbers"),
        (b" \n", CSV, 400, "it is empty"),
        (b"1,2", NPY, 400, "it does not begin as such a file does"),
        (pickled(), NPY, 400, "Python objects in it"),
        (long(), NPY, 400, "its head says 1099511627776 bytes of numbers, and there are 0"),
    ],
)
def test_what_is_no_array(defaults, ask, body, kind, status, words):
    [(code, answer, _)] = ask(defaults, (body, {"Content-Type": kind}))
    assert (code, words in json.loads(answer)["error"]) == (status, True), answer


@pytest.fixture
def defaults(worker, base):
    """A worker with a TorchScript file and nothing else."""
    save(base / "model" / "model.pt")
    return worker("", own_model=True)


def test_what_the_answer_cannot_be(worker, ask):
    code = "import torch\ndef model_fn(model_dir):\n    return 0\ndef predict_fn(data, model):\n    return data\n"
    context = worker(code, own_model=True)
    body = json.dumps([[[1, 2]]]).encode()
    found = ask(context, *((body, {"Content-Type": JSON, "Accept": accept}) for accept in (CSV, "image/png")))
    assert [(status, json.loads(answer)["error"].partition(":")[0]) for status, answer, _ in found] == [
        (406, "an answer of 3 dimensions is no CSV"),
        (406, "accept 'image/png' cannot be served"),
    ]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "must hold one TorchScript file (*.pt, *.pth), found: none: pack it"),
        ({"a.pt": None, "b.pth": None}, "must hold one TorchScript file (*.pt, *.pth), found: a.pt, b.pth"),
        ({"model.pth": {"weight": torch.ones(2)}}, "model.pth cannot be loaded as TorchScript ("),
    ],
)
def test_a_model_that_cannot_be_loaded(worker, base, files, words):
    for name, state in files.items():
        torch.save(state, base / "model" / name)
    with pytest.raises(UserError) as raised:
        worker("", own_model=True)
    assert words in str(raised.value)
    assert str(raised.value).endswith("or define model_fn(model_dir)")


def test_without_torch(worker, base, monkeypatch):
    """As in the slim image."""
    monkeypatch.setitem(sys.modules, "kennel_serve.worker.torch_defaults", None)
    with pytest.raises(
        UserError, match=r"inference.py defines no input_fn, and this image has no torch to do it .*: def"
    ):
        worker("", own_model=True)
