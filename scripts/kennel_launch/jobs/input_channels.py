"""Channels of a training job, by the flags that name their places: what is uploaded, what is streamed, what fits."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from kennel import hyperparameters
from kennel.errors import UserError
from kennel_launch.advice import image_fit
from kennel_launch.aws import instance_types, manifests, readonly, s3_upload, sync
from kennel_launch.console import flags
from kennel_launch.inference import photo_sources
from kennel_launch.settings import Settings

PHOTOS = ("data", "val", "test")  # flags of channels that hold photos
CHANNELS = {"data": "train", "val": "validation", "test": "test", "pretrained": "pretrained", "from_model": "model"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="", metavar="PHOTOS", help="a folder, which is uploaded, or s3://...")
    parser.add_argument("--val", default="", metavar="PHOTOS", help="validation, where it is not inside the data")
    parser.add_argument("--test", default="", metavar="PHOTOS", help="photos that judge the model at the end")
    parser.add_argument(
        "--pretrained", default="", metavar="WEIGHTS", help="a folder or s3://... with weights; or false"
    )


def places(options: argparse.Namespace) -> dict[str, str]:
    """Where the channels that were asked for lie, by their flag's name."""
    values = {flag: str(getattr(options, flag, "") or "") for flag in CHANNELS}
    return {flag: place for flag, place in values.items() if place not in ("", *flags.SWITCHED)}


def photos_of(options: argparse.Namespace) -> dict[str, str]:
    """Where the photos lie, by their flag's name."""
    return {flag: place for flag, place in places(options).items() if flag in PHOTOS}


def placed(options: argparse.Namespace, settings: Settings) -> tuple[dict[str, sync.UploadPlan], dict[str, str]]:
    """(what must be uploaded first, S3 URI) by channel.

    Raises:
        UserError: no photos are named, or a place is neither a folder nor in S3.
    """
    if not options.data:
        raise UserError(
            "say where the photos are: --data FOLDER, or --data s3://bucket/prefix as kennel upload says it"
        )
    plans, channels = {}, {}
    for flag, place in places(options).items():
        channel = CHANNELS[flag]
        if place.startswith("s3://"):
            # SageMaker takes all that begins alike: of .../pets also .../pets-old.
            folder = flag in PHOTOS and not manifests.is_manifest(place) and not place.endswith("/")
            channels[channel] = f"{place}/" if folder else place
        elif Path(place).is_dir():
            plans[channel] = sync.plan(Path(place), settings)
            channels[channel] = plans[channel].uri
        else:
            raise UserError(f"--{flag.replace('_', '-')} {place} is no folder here: give one, or s3://bucket/prefix")
    uris = [plan.uri for plan in plans.values()]
    if len(set(uris)) < len(uris):
        raise UserError(f"two folders of one name would both lie in {uris[0]}: kennel upload them by --name")
    return plans, channels


def streamed(channels: Mapping[str, str], settings: Settings) -> dict[str, tuple[str, ...]]:
    """The attributes that Pipe mode streams, by channel; those of weights are no manifests.

    Raises:
        UserError: as manifests.attributes.
    """
    return {name: manifests.attributes(uri, settings) for name, uri in channels.items() if manifests.is_manifest(uri)}


def check_volume(
    options: argparse.Namespace,
    settings: Settings,
    plans: Mapping[str, sync.UploadPlan],
    channels: Mapping[str, str],
    given: Mapping[str, str],
) -> list[str]:
    """Whether photos and decoded photos fit on each machine's volume; lines to show, of its key too.

    Raises:
        UserError: they do not, or there are none.
    """
    count = size = 0
    lines: list[str] = []
    for name in (CHANNELS[flag] for flag in PHOTOS if CHANNELS[flag] in channels):
        plan = plans.get(name)
        found = {key: file.size for key, file in plan.files.items()} if plan else {}
        with readonly.if_allowed(f"the size of {channels[name]}", lines):
            found = found or s3_upload.sizes(channels[name], settings)
            if not found:
                raise UserError(f"nothing lies in {channels[name]}: kennel upload FOLDER says where its photos are")
        count += sum(map(photo_sources.is_photo, found))
        size += sum(found.values()) if options.input_mode == "File" else 0
    side = hyperparameters.parse(given).image_size or image_fit.USUAL_SIZE
    image_fit.check_volume(settings, count, size, side, options.volume_size)
    if settings.kms_key and instance_types.has_own_disk(settings.instance_type):
        lines.append(
            f"{settings.instance_type} encrypts its own disks and takes no key: {settings.kms_key} is for the output"
        )
    return lines


def shown(channels: Mapping[str, str], plans: Mapping[str, sync.UploadPlan]) -> list[str]:
    """A line for each channel."""
    return [f"channel {name}: {plans.get(name, uri)}" for name, uri in channels.items()]
