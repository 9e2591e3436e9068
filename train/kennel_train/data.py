"""From channels to labelled photos: which folder is which split, which folder is which class. Opens no photo."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from kennel.errors import UserError
from kennel.photos import SPLITS, class_folders, photos

_EXPECTED = "expected {0}/<class>/*.jpg (or .png, .webp, ...)"


@dataclass(frozen=True)
class Photo:
    path: Path
    label: int  # index into class_names


@dataclass(frozen=True)
class Found:
    """What lies on this host: split -> class name -> photos; a split that no channel gives is left out."""

    folders: dict[str, dict[str, list[Path]]]
    shown: dict[str, str]  # split -> its channel's name
    left_out: list[Path]  # other files in the classes' folders


@dataclass(frozen=True)
class Channels:
    """The labelled photos of one job on this host; a split that no channel gives is left out."""

    class_names: tuple[str, ...]
    splits: dict[str, list[Photo]]
    left_out: list[Path]


def find(data: Path) -> Found:
    """The photos of every split under /opt/ml/input/data.

    A split is a channel of its own, or a folder inside the training channel (`train/train/...`, `train/valid/...`).

    Raises:
        UserError: a missing channel, or photos outside a class folder.
    """
    folders = _split_folders(data)
    if "train" not in folders:
        found = ", ".join(sorted(path.name for path in data.iterdir())) if data.is_dir() else ""
        raise UserError(f"there is no channel 'train' (channels: {found or 'none'}): {_EXPECTED.format('train')}")
    classes = {split: _classes(path, path.relative_to(data)) for split, path in folders.items()}
    left_out = [path for split, folder in folders.items() for path in _others(folder, classes[split])]
    return Found(classes, {split: str(path.relative_to(data)) for split, path in folders.items()}, left_out)


def label(found: Found, classes: Mapping[str, Collection[str]]) -> Channels:
    """This host's photos with the numbers of their classes, which are the sorted names of the training split.

    Args:
        classes: split -> the class names that any host has, since a sharded channel gives each host a part only.

    Raises:
        UserError: an empty channel, fewer than two classes, or a class that training lacks.
    """
    for split, shown in found.shown.items():
        if not classes[split]:
            raise UserError(f"channel '{shown}' has no photos: {_EXPECTED.format(shown)}")
    names = tuple(sorted(classes["train"]))
    if len(names) < 2:
        raise UserError(f"channel 'train' has one class only ({names[0]}): a classifier needs two folders or more")
    for split, shown in found.shown.items():
        unknown = sorted(set(classes[split]) - set(names))
        if unknown:
            raise UserError(
                f"channel '{Path(shown).name}' has the class {', '.join(map(repr, unknown))} that channel 'train' "
                f"lacks: add photos of it to train or remove the folder (train has: {', '.join(names[:20])})"
            )
    labelled = {
        split: [Photo(path, at) for at, name in enumerate(names) for path in inner.get(name, [])]
        for split, inner in found.folders.items()
    }
    return Channels(names, labelled, found.left_out)


def _split_folders(data: Path) -> dict[str, Path]:
    """Split -> folder: the channels, or the splits inside a training channel that holds them all."""
    channels = _named(data)
    root = channels.get("train")
    if root is None:
        return channels
    inner = _named(root)
    if "train" not in inner or photos(inner["train"]) or not class_folders(inner["train"]):
        return channels  # a class may well be called `train`: then it holds photos, not classes
    twice = sorted(set(inner) & set(channels) - {"train"})
    if twice:
        raise UserError(f"{twice[0]} photos are given twice, as a channel and inside channel '{root.name}': keep one")
    return {**channels, **inner}


def _named(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for split, names in SPLITS.items():
        here = [root / name for name in names if (root / name).is_dir()]
        if len(here) > 1:
            raise UserError(f"{' and '.join(repr(p.name) for p in here)} both name the {split} photos: keep one")
        if here:
            found[split] = here[0]
    return found


def _classes(folder: Path, shown: Path) -> dict[str, list[Path]]:
    """Class name -> its photos; folders without photos are left out.

    Raises:
        UserError: photos that lie outside a class folder.
    """
    loose = photos(folder)
    if loose:
        raise UserError(
            f"{len(loose)} photos lie directly in channel '{shown}' ({loose[0].name}): "
            f"move each into a folder named after its class, {_EXPECTED.format(shown)}"
        )
    found = {name: photos(path) for name, path in class_folders(folder).items()}
    return {name: paths for name, paths in found.items() if paths}


def _others(folder: Path, classes: dict[str, list[Path]]) -> list[Path]:
    """What lies in the classes' folders beside photos: other formats, deeper folders; hidden files are not counted."""
    found = []
    for name, inner in class_folders(folder).items():
        known = set(classes.get(name, []))
        found += sorted(path for path in inner.iterdir() if path not in known and not path.name.startswith("."))
    return found
