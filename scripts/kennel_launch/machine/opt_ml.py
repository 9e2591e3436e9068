"""From a folder of photos to a scratch /opt/ml as SageMaker lays it out, and the photos that are kept back.

Big folders are linked or mounted, never copied.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kennel.errors import UserError
from kennel.files import printable
from kennel.layout import MANIFEST, Layout
from kennel.photos.photo_folders import (
    class_folders,
    files,
    hashes,
    is_photo,
    loose_photos,
    photos,
    split,
    split_folders,
)

TEST_FRACTION = 0.2
EARLIER = "model-earlier"  # in OUT: the model that was there, until the new one is whole
RECORD, ENDPOINT = "job.json", "endpoint"  # in OUT: which job the model is of; the endpoint that runs from there
_SHAPES = "<class>/*.jpg, or train/<class>/*.jpg beside val/ or test/"


@dataclass(frozen=True)
class Photo:
    """One photo that training never sees, and its class."""

    path: Path
    truth: str


@dataclass(frozen=True)
class ChannelPlan:
    """Which folder becomes which channel, and what is kept back to test the endpoint with."""

    channels: dict[str, Path]
    test: list[Photo]
    class_names: list[str]
    left_out: list[str]  # in words: what of the folder is used nowhere


def splits(data: Path) -> dict[str, Path]:
    """Channel name -> folder of a data set that comes split; empty where the folder holds the classes themselves.

    A folder named `train` that holds photos and no folders is a class (of vehicles), not a split.

    Raises:
        UserError: no such folder, or two that could be the same split.
    """
    if not data.is_dir():
        raise UserError(f"DATA={data} is no folder: give one that holds {_SHAPES}")
    found = split_folders(data, _holds_folders)
    return found if "train" in found else {}


def plan(data: Path, cut: Path, fraction: float = TEST_FRACTION) -> ChannelPlan:
    """Train, validation and test sides of a folder of photos.

    Args:
        data: split folders as they are; with train and validation only, validation is the test side (training splits
            its own from train); else the test side is cut from each class by file hash.
        cut: where the training side of such a cut is laid, as hard links.

    Raises:
        UserError: the folder has another shape, or too few photos or classes.
    """
    found = splits(data)
    train = found.get("train", data)
    if not found or found.keys() == {"train"}:
        return _cut(train, cut, fraction)
    channels = {"train": train}
    if "test" in found and "validation" in found:
        channels["validation"] = found["validation"]
    classes = _classes(train)
    test = found.get("test") or found["validation"]
    return ChannelPlan(channels, _labelled(test, classes), list(classes), _left_out({train, test, *channels.values()}))


def channels(data: Path, pretrained: Path | None) -> dict[str, Path]:
    """The channels of one job: a folder's splits, or all of it as `train`; and a folder with weights.

    Raises:
        UserError: no such folder.
    """
    found = splits(data) or {"train": data}
    if pretrained:
        if not pretrained.is_dir():
            raise UserError(f"PRETRAINED={pretrained} is no folder: give one that holds one file of weights")
        found["pretrained"] = pretrained
    return found


def lay_out(
    base: Path,
    channels: Mapping[str, Path],
    hyperparameters: Mapping[str, str],
    hosts: Sequence[str],
    *,
    keep_checkpoints: bool = False,
) -> Layout:
    """A fresh /opt/ml under `base`: configuration as SageMaker writes it, an empty folder for each channel.

    Args:
        hosts: of the job, this one first.
        keep_checkpoints: leave an earlier job's there, as SageMaker puts them back for a job that goes on.

    Raises:
        UserError: `base` holds something that is no earlier scratch /opt/ml, or an earlier one cannot be removed.
    """
    layout = Layout(base)
    resources = layout.config / "resourceconfig.json"
    if base.exists() and any(base.iterdir()):
        if not resources.is_file():
            raise UserError(f"{base} holds other files, and a job starts with an empty folder: name a new one")
        try:
            # That file says that the folder is ours, and must outlive a removal that is cut short.
            kept = {resources, *(base / name for name in (EARLIER, RECORD, ENDPOINT))}
            kept |= {layout.checkpoints} if keep_checkpoints else set()
            _clear(base, kept)
        except OSError as error:
            raise UserError(f"{base} holds an earlier job's files, which cannot be removed ({error})") from error
    for folder in (layout.config, layout.model, layout.failure.parent / "data", *(layout.data / c for c in channels)):
        folder.mkdir(parents=True, exist_ok=True)
    channel = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    files = {
        layout.hyperparameters: dict(hyperparameters),
        layout.config / "inputdataconfig.json": dict.fromkeys(channels, channel),
        resources: {
            "current_host": hosts[0],
            "hosts": sorted(hosts),
            "network_interface_name": "eth0" if len(hosts) > 1 else "lo",
        },
    }
    for path, content in files.items():
        path.write_text(json.dumps(content, indent=2))
    return layout


@contextmanager
def model_kept(base: Path) -> Iterator[None]:
    """While a job runs in `base`: the model of an earlier one comes back unless the new one is whole."""
    model, earlier = Layout(base).model, base / EARLIER
    if holds_files(model):
        shutil.rmtree(earlier, ignore_errors=True)
        model.rename(earlier)
    ended = False
    try:
        yield
        ended = True
    finally:
        if (model / MANIFEST).is_file() or (ended and holds_files(model)):
            shutil.rmtree(earlier, ignore_errors=True)
        elif earlier.is_dir():
            shutil.rmtree(model, ignore_errors=True)
            earlier.rename(model)


def link_channels(layout: Layout, channels: Mapping[str, Path]) -> None:
    """For a job without a container: each channel is a symbolic link to its folder."""
    for name, folder in channels.items():
        (layout.data / name).rmdir()
        (layout.data / name).symlink_to(folder.resolve(), target_is_directory=True)


def _clear(folder: Path, spared: Set[Path]) -> None:
    for path in folder.iterdir():
        if path in spared:
            continue
        if any(path in one.parents for one in spared):
            _clear(path, spared)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def holds_files(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def _holds_folders(path: Path) -> bool:
    return path.is_dir() and bool(class_folders(path))


def _classes(root: Path) -> dict[str, list[Path]]:
    """Class name -> its photos."""
    classes = {name: photos(*folders) for name, folders in class_folders(root).items()}
    holding = {name: found for name, found in classes.items() if found}
    if len(holding) < 2:
        raise UserError(f"{root} has photos of {len(holding)} classes, two are needed: lay it out as {_SHAPES}")
    return holding


def _labelled(root: Path, classes: Collection[str]) -> list[Photo]:
    """The photos of a test folder, each with its class."""
    found: list[Photo] = []
    for name, folders in class_folders(root).items():
        files = photos(*folders)
        if files and name not in classes:
            raise UserError(
                f"{folders[0]} holds photos of a class that training lacks: add it there or leave it out here"
            )
        found += [Photo(path, name) for path in files]
    if not found:
        raise UserError(f"{root} has no photos to test with: lay it out as {root.name}/<class>/*.jpg")
    return found


def _cut(root: Path, cut: Path, fraction: float) -> ChannelPlan:
    classes = _classes(root)
    hashed = hashes(path for found in classes.values() for path in found)
    shutil.rmtree(cut, ignore_errors=True)
    test: list[Photo] = []
    for name, found in classes.items():
        kept, held_out = split({path: hashed[path] for path in found if path in hashed}, fraction)
        test += [Photo(path, name) for path in held_out]
        (cut / name).mkdir(parents=True)
        taken: set[str] = set()
        for path in kept:
            own = path.name if path.name not in taken else f"{len(taken)}-{path.name}"  # of another folder below
            taken.add(own)
            hard_link(path, cut / name / own)
    if not test:
        raise UserError(f"{root} has one photo a class, nothing can be kept back to test with: add photos")
    copies = sum(map(len, classes.values())) - len(hashed)
    left_out = _left_out({root}) + ([f"{copies} copies of other photos"] if copies else [])
    return ChannelPlan({"train": cut}, test, list(classes), left_out)


def _left_out(roots: Set[Path]) -> list[str]:
    """What lies in folders of classes and is no photo, photos that are in no class, and classes without one."""
    said: list[str] = []
    for root in sorted(roots):
        others = [path for path in files(root) if not is_photo(path)]
        if others:
            said.append(f"{len(others)} files of {root.name} that are no photos ({printable(others[0].name)})")
        if loose := loose_photos(root):
            said.append(f"{len(loose)} photos of {root.name} outside its classes ({printable(loose[0].name)})")
        hollow = [name for name, folders in class_folders(root).items() if not photos(*folders)]
        if hollow:
            said.append(f"classes of {root.name} without photos ({', '.join(hollow)})")
    return said


def hard_link(source: str | Path, target: str | Path) -> None:
    """A hard link, or a copy where the file systems differ or links are not allowed."""
    try:
        os.link(Path(source).resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
