"""From channels to labelled photos: which folder is which split, which folder is which class. Opens no photo."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kennel.errors import UserError
from kennel.files import printable
from kennel.photos.photo_folders import class_folders, files, is_photo, loose_photos, photos, split_folders

_EXPECTED = "expected {0}/<class>/*.jpg (or .png, .webp, ...)"
_OTHER_CHANNELS = frozenset({"pretrained", "model", "code", "sm_drivers"})  # which hold no photos
Folder = tuple[str, ...]  # a path's parts
_LISTS = (".csv", ".json", ".tsv", ".txt", ".xlsx", ".parquet")


@dataclass(frozen=True)
class Photo:
    path: Path
    label: int  # index into class_names


@dataclass(frozen=True)
class ImageFolders:
    """What lies on this host: split -> class name -> photos; a split that no channel gives is left out."""

    folders: dict[str, dict[str, list[Path]]]
    shown: dict[str, str]  # split -> its folder below the channels' root, the channel's name first
    left_out: list[Path]  # other files in the classes' folders
    empty: dict[str, list[str]] = field(default_factory=dict)  # split -> class folders that give no photo here
    notes: list[str] = field(default_factory=list)  # for the log: what was taken for what, and what is not used
    lists: list[Path] = field(
        default_factory=list
    )  # files of labels that lie beside the classes' folders and aren't read


@dataclass(frozen=True)
class Channels:
    """The labelled photos of one job on this host; a split that no channel gives is left out."""

    class_names: tuple[str, ...]
    splits: dict[str, list[Photo]]
    left_out: list[Path]


def holders(data: Path, sharded: Collection[str]) -> set[Folder]:
    """The folders of sharded channels in which photos lie, on this host, below `data`."""
    return {
        file.parent.relative_to(data).parts
        for name in sharded
        if (data / name).is_dir()
        for file in files(data / name)
        if is_photo(file)
    }


def find(
    data: Path,
    sharded: Collection[str] = (),
    gather: Callable[[set[Folder]], list[set[Folder]]] = lambda mine: [mine],
) -> ImageFolders:
    """The photos of every split under /opt/ml/input/data.

    A split is a channel of its own, or a folder inside the training channel (`train/train/...`, `train/valid/...`). A
    folder of any name around the classes, as archives have it (`train/dataset-v2/<class>`), is looked into.

    Args:
        sharded: channels of which each host has a part only; this one's may hold no photo of some splits.
        gather: gives every host's `holders`: what a folder of a sharded channel is, one host's part cannot say.

    Raises:
        UserError: a missing channel, photos outside a class folder, or a folder that cannot be read.
    """
    everyones = set[Folder]().union(*gather(holders(data, sharded)))
    folders = _split_folders(data, sharded)
    if "train" not in folders and "train" not in split_folders(data):
        found = ", ".join(sorted(printable(path.name) for path in data.iterdir())) if data.is_dir() else ""
        raise UserError(f"there is no channel 'train' (channels: {found or 'none'}): {_EXPECTED.format('train')}")
    notes = [f"photos of channel '{path.name}' are not used: {_USED}" for path in _unused(data, folders)]
    classes: dict[str, dict[str, list[Path]]] = {}
    empty: dict[str, list[str]] = {}
    left_out: list[Path] = []
    lists: list[Path] = []
    for split, folder in folders.items():
        place = folder.relative_to(data).parts
        inner = _unwrapped_everywhere(folder, place, everyones) if place[0] in sharded else _unwrapped(folder)
        if inner != folder and (split == "train" or inner.name not in classes.get("train", {})):
            notes.append(f"the classes of {split} are the folders in {printable(inner.relative_to(data))}")
            folders[split] = folder = inner
        shown = printable(folder.relative_to(data))
        by_class = _classes(folder, shown)
        for name, its in class_folders(folder).items():
            if len(its) > 1:
                notes.append(f"{shown}: {len(its)} folders are class '{name}', in two Unicode forms of its name")
        classes[split] = {name: paths for name, paths in by_class.items() if paths}
        empty[split] = [name for name, paths in by_class.items() if not paths]
        left_out += _others(folder, classes[split])
        lists += [path for path in folder.iterdir() if path.suffix.lower() in _LISTS and path.is_file()]
    shown_as = {split: str(path.relative_to(data)) for split, path in folders.items()}
    return ImageFolders(classes, shown_as, left_out, empty, notes, lists)


_USED = "name it train, val or test, or leave it out"


def label(found: ImageFolders, classes: Mapping[str, Collection[str]], allow_missing: bool = False) -> Channels:
    """This host's photos with the numbers of their classes, which are the sorted names of the training split.

    Args:
        classes: split -> the class names that any host has, since a sharded channel gives each host a part only.
        allow_missing: a class folder in train may hold no photo; its class does then not exist.

    Raises:
        UserError: an empty channel, an empty class, fewer than two classes, or a class that training lacks.
    """
    for split, shown in found.shown.items():
        if not classes[split]:
            raise UserError(f"channel '{shown}' has no photos: {_EXPECTED.format(shown)}")
    names = tuple(sorted(classes["train"]))
    hollow = [name for name in found.empty.get("train", []) if name not in names]
    if hollow and not allow_missing:
        others = [path for path in found.left_out if hollow[0] in path.parts]
        but = f", only files that are no photos ({printable(others[0].name)})" if others else ""
        raise UserError(
            f"class folder '{hollow[0]}' of channel '{found.shown['train']}' holds no photo{but}: add photos of it, "
            "remove the folder, or set allow_missing_classes=true"
        )
    if len(names) < 2:
        if found.lists:
            hint = f"; {printable(found.lists[0].name)} is not read, labels are folders, or an augmented manifest"
        else:
            hint = _deeper(found.folders.get("train", {}).get(names[0], []))
        raise UserError(
            f"channel 'train' has one class only ({names[0]}): a classifier needs two folders or more{hint}"
        )
    for split, shown in found.shown.items():
        unknown = sorted(set(classes[split]) - set(names))
        if unknown:
            raise UserError(
                f"channel '{Path(shown).name}' has the class {', '.join(map(repr, unknown))} that channel 'train' "
                f"lacks: add photos of it to train or remove the folder (train has: {', '.join(names[:20])})"
            )
    # In the order of `classes`, which all hosts share: the splits are decoded and gathered one after another.
    labelled = {
        split: [Photo(path, at) for at, name in enumerate(names) for path in found.folders[split].get(name, [])]
        for split in classes
    }
    return Channels(names, labelled, found.left_out)


def _deeper(photos: Sequence[Path]) -> str:
    """Where the photos of a single class lie in folders that may be the classes; empty: they don't."""
    folders = sorted({path.parent for path in photos})
    if len(folders) < 2:
        return ""
    top = Path(os.path.commonpath(folders))
    beside = ", ".join(printable(folder.relative_to(top).as_posix()) for folder in folders[:3] if folder != top)
    return f"; if folders deeper down are the classes ({beside}, in '{printable(top.name)}'), move them up to train/"


def _split_folders(data: Path, sharded: Collection[str]) -> dict[str, Path]:
    """Split -> folder: the channels, or the splits inside a training channel that holds them all.

    Of a sharded training channel a host may have validation photos alone; they must not be taken for classes.
    """
    channels = split_folders(data)
    root = channels.get("train")
    if root is None:
        return channels
    for holder in (root, *_only_folder(root)):  # photos/train, photos/val in a folder of the archive's name, too
        inner = split_folders(holder)
        if "train" in inner and not loose_photos(inner["train"]) and class_folders(inner["train"]):
            break
        if root.name in sharded and inner and _nothing_but(holder, inner):
            del channels["train"]
            break
    else:
        return channels  # a class may well be called `train`: then it holds photos, not classes
    twice = sorted(set(inner) & set(channels) - {"train"})
    if twice:
        raise UserError(f"{twice[0]} photos are given twice, as a channel and inside channel '{root.name}': keep one")
    return {**channels, **inner}


def _nothing_but(holder: Path, inner: Mapping[str, Path]) -> bool:
    """Whether a folder holds these splits and no other photos, and they hold classes."""
    there = {path for paths in class_folders(holder).values() for path in paths}
    return (
        there == set(inner.values())
        and not loose_photos(holder)
        and all(class_folders(folder) and not loose_photos(folder) for folder in inner.values())
    )


def _only_folder(root: Path) -> list[Path]:
    """The one folder of a folder that has no photos of its own, if it is so."""
    inner = [path for paths in class_folders(root).values() for path in paths]
    return inner if len(inner) == 1 and not loose_photos(root) else []


def _unwrapped(folder: Path) -> Path:
    """The folder that holds the classes: `folder`, or the only one in it that has photos, all in folders of its own."""
    holding: list[Path] = []
    if loose_photos(folder):
        return folder
    for paths in class_folders(folder).values():
        holding += [path for path in paths if any(is_photo(file) for file in files(path))]
        if len(holding) > 1:
            return folder
    if len(holding) != 1 or loose_photos(holding[0]):
        return folder
    inner = [path for paths in class_folders(holding[0]).values() for path in paths]
    return holding[0] if sum(any(is_photo(file) for file in files(path)) for path in inner) > 1 else folder


def _unwrapped_everywhere(folder: Path, place: Folder, everyones: set[Folder]) -> Path:
    """`_unwrapped` of a sharded channel's folder, by what all hosts have in it.

    Args:
        place: the folder's below the channels' root.
    """
    here = {one[len(place) :] for one in everyones if one[: len(place)] == place}
    outer, deeper = {one[:1] for one in here}, {one[1:2] for one in here if len(one) > 1}
    if len(outer) != 1 or outer & (here | {()}) or len(deeper) < 2:
        return folder
    return folder / outer.pop()[0]


def _unused(data: Path, folders: Mapping[str, Path]) -> list[Path]:
    """Channels, and folders beside the splits in the training channel, that hold photos but are no split."""
    used = set(folders.values())
    roots = {data} | {path.parent for path in used}
    beside = [path for root in sorted(roots) for path in sorted(root.iterdir()) if path.is_dir() and path not in used]
    return [
        path
        for path in beside
        if not path.name.startswith(".")
        and path.name not in _OTHER_CHANNELS
        and not any(path in one.parents for one in used)
        and any(is_photo(file) for file in files(path))
    ]


def _classes(folder: Path, shown: str) -> dict[str, list[Path]]:
    """Class name -> its photos, wherever below its folders they lie.

    Raises:
        UserError: photos that lie outside a class folder.
    """
    loose = loose_photos(folder)
    if loose:
        raise UserError(
            f"{len(loose)} photos lie directly in channel '{shown}' ({printable(loose[0].name)}): move each into a "
            f"folder named after its class, {_EXPECTED.format(shown)}, or list them in an augmented manifest"
        )
    return {name: photos(*paths) for name, paths in class_folders(folder).items()}


def _others(folder: Path, classes: dict[str, list[Path]]) -> list[Path]:
    """What lies in the classes' folders beside photos; hidden files and systems' own are not counted."""
    found = []
    for name, paths in class_folders(folder).items():
        known = set(classes.get(name, []))
        found += sorted(file for path in paths for file in files(path) if file not in known)
    return found
