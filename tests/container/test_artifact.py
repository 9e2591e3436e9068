"""The model folder's manifest: written whole, read back, and every damage named."""

import json
from dataclasses import asdict

import pytest

from kennel import artifact
from kennel.artifact import Manifest
from kennel.errors import UserError
from kennel.files import file_hash
from kennel.layout import MANIFEST, ONNX
from kennel.photos.preprocessing import Preprocessing


@pytest.fixture
def folder(tmp_path):
    (tmp_path / ONNX).write_bytes(b"a network")
    files = {ONNX: file_hash(tmp_path / ONNX)}
    made = Manifest(
        ("cat", "dog"), Preprocessing(), {"name": "resnet50"}, metrics={"epoch": 3.0}, files=files, temperature=1.5
    )
    artifact.write_manifest(tmp_path, made)
    return tmp_path


def test_what_is_written_is_read(folder):
    manifest = artifact.read_manifest(folder)
    assert manifest.class_names == ("cat", "dog")
    assert manifest.preprocessing == Preprocessing()
    assert manifest.metrics == {"epoch": 3.0}
    assert manifest.temperature == 1.5
    assert not list(folder.glob("*.partial"))


def test_a_manifest_from_before_the_calibration_is_read(folder):
    path = folder / MANIFEST
    row = json.loads(path.read_text())
    path.write_text(json.dumps({key: row[key] for key in row if key not in ("temperature", "evaluation", "int8")}))
    manifest = artifact.read_manifest(folder)
    assert (manifest.temperature, manifest.evaluation, manifest.int8) == (1.0, {}, {})


def test_fields_of_a_later_version_are_left_aside(folder):
    edit(folder, licence="MIT", more={"a": 1})
    assert artifact.read_manifest(folder).class_names == ("cat", "dog")


def edit(folder, **change):
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda f: (f / MANIFEST).unlink(),
            "is no Kennel model, manifest.json is missing (it holds model.onnx)",
        ),
        (lambda f: (f / MANIFEST).write_text("{"), "is damaged"),
        (lambda f: (f / MANIFEST).write_text("[]"), "is damaged"),
        (lambda f: edit(f, format=99), "has format 99, this version reads 1: train again"),
        (lambda f: edit(f, class_names=[]), "is damaged (no class names"),
        (
            lambda f: edit(f, preprocessing={**asdict(Preprocessing()), "crop": 1}),
            "field 'crop' is not known to this",
        ),
        (lambda f: edit(f, preprocessing={}), "preprocessing"),
        (lambda f: edit(f, files={ONNX: "0", "../escape": "0"}), "hash differs"),
        (lambda f: edit(f, temperature=0), "is damaged (temperature 0)"),
        (lambda f: edit(f, temperature=-1.5), "is damaged (temperature -1.5)"),
        (lambda f: edit(f, temperature=float("nan")), "is damaged (temperature nan)"),
        (lambda f: edit(f, temperature=float("inf")), "is damaged (temperature inf)"),
        (lambda f: edit(f, temperature="2"), "is damaged (temperature '2')"),
        (lambda f: edit(f, temperature=None), "is damaged (temperature None)"),
        (lambda f: (f / ONNX).write_bytes(b"another"), "its hash differs"),
        (lambda f: (f / ONNX).unlink(), "is missing or is a link"),
    ],
)
def test_every_damage_is_named(folder, damage, said):
    damage(folder)
    with pytest.raises(UserError) as caught:
        artifact.read_manifest(folder)
    assert said in str(caught.value)


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="it is empty or absent"):
        artifact.read_manifest(tmp_path / "nowhere")
