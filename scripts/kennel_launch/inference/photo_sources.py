"""Which photos an endpoint or a batch is asked about: files, folders, or objects in S3; and their content types."""

import mimetypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kennel.errors import UserError
from kennel.photos import photo_folders
from kennel.photos.file_formats import PHOTO_SUFFIXES
from kennel_launch.aws import s3, session
from kennel_launch.settings import Settings

TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff")
ANY_PHOTO = "application/x-image"  # an endpoint looks at the bytes


@dataclass(frozen=True)
class Photo:
    """A photo by a name to show: a file, or an object in S3."""

    name: str
    path: Path | None = None
    address: str = ""  # s3://

    def read(self, client: Any) -> bytes:
        """Its bytes.

        Args:
            client: S3's, for an object.

        Raises:
            UserError: it cannot be read.
        """
        if self.path:
            try:
                return self.path.read_bytes()
            except OSError as error:
                raise UserError(f"{self.path} cannot be read ({error.strerror})") from error
        bucket, key = s3.split(self.address)
        with session.translate_errors(self.address):
            return bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())


def content_type(name: str) -> str:
    """By the file's name: `image/jpeg`."""
    found = mimetypes.guess_type(name, strict=False)[0]  # webp is not official
    return found if found in TYPES else ANY_PHOTO


def find(text: str, settings: Settings) -> list[Photo]:
    """The photos of a file, a folder with all its folders, an object, or all that lies under a prefix.

    Raises:
        UserError: nothing is there, or nothing that is a photo by its name.
    """
    found = _in_s3(text, settings) if s3.is_address(text) else _here(Path(text))
    if not found:
        raise UserError(f"{text} holds no photos ({', '.join(PHOTO_SUFFIXES)})")
    return found


def is_photo(name: str) -> bool:
    """By its name alone, as S3 lists it; hidden files are none."""
    path = Path(name)
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".")


def _here(path: Path) -> list[Photo]:
    if path.is_file():
        return [Photo(str(path), path)]
    if not path.is_dir():
        raise UserError(f"{path} is no file and no folder: name a photo, a folder of photos or s3://BUCKET/KEY")
    return [Photo(file.relative_to(path).as_posix(), file) for file in photo_folders.photos(path)]


def _in_s3(address: str, settings: Settings) -> list[Photo]:
    bucket, key = s3.split(address)
    with session.translate_errors(address):
        client = session.client("s3", settings)
        if is_photo(key) and key in s3.keys(client, bucket, key):
            return [Photo(address, address=address)]
        folder = key if not key or key.endswith("/") else f"{key}/"
        names = [name for name in s3.keys(client, bucket, folder) if is_photo(name)]
    return [Photo(name.removeprefix(folder), address=f"s3://{bucket}/{name}") for name in names]
