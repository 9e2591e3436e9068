"""What may lie in a model folder, and what stops an endpoint before anything of it is read."""

import os
import pickle
import socket

import numpy as np
import pytest

from kennel import layout
from kennel.errors import UserError
from kennel_serve.inference import model_folder


@pytest.fixture
def model(tmp_path):
    """Everything that `train` may write."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (layout.MANIFEST, layout.ONNX, layout.INT8):
        (folder / name).write_bytes(b"x")
    # The length of a header of 896 bytes: its first two bytes are those of a pickle.
    (folder / layout.WEIGHTS).write_bytes((0x0380).to_bytes(8, "little") + b"{}")
    return folder


def link(target):
    return lambda path: path.symlink_to(target)


def plain(content):
    return lambda path: path.write_bytes(content)


def numpy_file(array):
    return lambda path: np.save(path, array)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


HARMLESS = [
    ("code/helpers.py", plain(b"x = 1")),
    ("README.md", link("manifest.json")),
    ("itself", link("itself")),
    ("inside", link("code")),
    ("._model.pkl", plain(b"mac")),
    (".DS_Store", plain(b"mac")),
    ("__MACOSX/model.pt", plain(b"mac")),
    ("numbers.npy", numpy_file(np.zeros(3))),
    ("tokens.bin", plain(b"\x80\x07\x00\x00")),
]
SPECIAL = [
    ("passwords", link("/etc/passwd"), "a link that leads out"),
    ("code/up", link("../.."), "a link that leads out"),
    ("gone", link("../absent"), "a link that leads out"),
    ("pipe", os.mkfifo, "no file but"),
    ("._pipe", os.mkfifo, "no file but"),
    ("s", unix_socket, "no file but"),
]
PICKLES = [
    ("model.pkl", plain(b"")),
    ("code/deep/model.PTH", plain(b"")),
    ("model.joblib", plain(b"")),
    ("objects.npy", numpy_file(np.array([{}], object))),
    ("torn.npy", plain(b"")),
    ("pytorch_model.bin", plain(pickle.dumps({}))),
    ("archive.bin", plain(b"PK\x03\x04rest")),
]


def put(model, name, write):
    path = model / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    return path


def test_what_train_writes_and_what_harms_nobody(model):
    for name, write in HARMLESS:
        put(model, name, write)
    model_folder.check(model, own_code=False)
    model_folder.check(model.parent / "absent", own_code=False)
    model.parent.joinpath("link").symlink_to(model)
    model_folder.check(model.parent / "link", own_code=False)


@pytest.mark.parametrize(("name", "write", "words"), SPECIAL)
@pytest.mark.parametrize("own_code", [False, True])
def test_links_and_special_files_are_refused_to_everybody(model, name, write, words, own_code):
    path = put(model, name, write)
    with pytest.raises(UserError, match=words) as raised:
        model_folder.check(model, own_code)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(("name", "write"), PICKLES)
def test_pickles_are_for_own_code_only(model, name, write):
    path = put(model, name, write)
    model_folder.check(model, own_code=True)
    with pytest.raises(UserError, match=r"is a pickle, which runs code .* inference.py") as raised:
        model_folder.check(model, own_code=False)
    assert str(path) in str(raised.value)


def test_too_many_files(model, monkeypatch):
    monkeypatch.setattr(model_folder, "MAX_FILES", 5)
    put(model, "fifth", plain(b""))
    put(model, "._sixth", plain(b""))
    model_folder.check(model, own_code=False)
    put(model, "sixth", plain(b""))
    model_folder.check(model, own_code=True)
    with pytest.raises(UserError, match="more than 5 files"):
        model_folder.check(model, own_code=False)


def test_size(model):
    before = model_folder.size(model)
    put(model, "code/weights", plain(b"x" * 1000))
    put(model, "again", link("code/weights"))
    assert model_folder.size(model) == before + 1000


def test_an_endpoint_refuses_it(base, running):
    (base / "model" / "model.pt").write_bytes(b"")
    with running(base) as server:
        assert server.wait_exit() == 1
        assert server.log.startswith(f"serve: {base / 'model' / 'model.pt'} is a pickle"), server.log
        assert len(server.log.splitlines()) == 1
        assert server.left_behind() == []
