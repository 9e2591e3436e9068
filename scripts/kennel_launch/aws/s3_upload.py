"""Files of a folder to S3: several at once, what changed only, shown as it goes."""

import json
import mimetypes
from collections.abc import Callable, Iterator
from typing import Any

from kennel.errors import UserError
from kennel_launch.aws import s3, session, sync
from kennel_launch.console import terminal
from kennel_launch.settings import Settings

ONE_PIECE = 64 * 2**20  # bytes up to which a file goes in one piece
_DELETED_AT_ONCE = 1000  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html


def send(made: sync.UploadPlan, settings: Settings, *, delete: bool = False) -> str:
    """Sends what changed, shown as it goes; says what was done.

    Raises:
        UserError: AWS refuses, or a file can't be read.
    """
    client = session.client("s3", settings)
    gone = made.gone if delete else ()
    with session.translate_errors(made.uri):
        if made.changed:
            with _progress(made) as sent:
                _send(client, made, settings, sent)
        if made.changed or made.unmarked:
            _note(client, made, settings)
        for at in range(0, len(gone), _DELETED_AT_ONCE):
            keys = [{"Key": made.prefix + key} for key in gone[at : at + _DELETED_AT_ONCE]]
            answer = client.delete_objects(Bucket=made.bucket, Delete={"Objects": keys, "Quiet": True})
            if refused := answer.get("Errors"):
                raise UserError(f"{made.uri}{refused[0]['Key']} can't be deleted ({refused[0]['Message']})")
    left = f", {len(made.gone)} in S3 are not in the folder (--delete removes them)" if made.gone and not delete else ""
    removed = f", {len(gone)} deleted" if gone else ""
    kept = f"; channel {', '.join(made.channels)} there is left as it is" if made.channels and delete else ""
    same = len(made.files) - len(made.changed)
    return f"{len(made.changed)} files sent, {made.size / 1e6:.1f} MB, {same} were there already{removed}{left}{kept}"


def sizes(address: str, settings: Settings) -> dict[str, int]:
    """Key -> bytes, of all that lies there; nothing of a manifest's photos, which may lie anywhere."""
    return {key: row["Size"] for key, row in sync.listed(session.client("s3", settings), *s3.split(address))}


def _send(client: Any, made: sync.UploadPlan, settings: Settings, sent: Callable[[int], None]) -> None:
    from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig, create_transfer_manager

    config = TransferConfig(multipart_threshold=ONE_PIECE, multipart_chunksize=ONE_PIECE, max_concurrency=s3.PARALLEL)
    with create_transfer_manager(client, config) as manager:
        futures = []
        for key in made.changed:
            kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
            arguments = {"ContentType": kind, **s3.encryption(settings)}
            where = str(made.files[key].path)
            futures.append(
                manager.upload(where, made.bucket, made.prefix + key, arguments, [ProgressCallbackInvoker(sent)])
            )
        try:
            for future in futures:
                future.result()
        except OSError as error:
            raise UserError(f"{error.filename} can't be read ({error.strerror}): see to it and upload again") from error


def _note(client: Any, made: sync.UploadPlan, settings: Settings) -> None:
    """Keeps the MD5s of objects whose ETag is none, if there are any; of a channel, that it was uploaded on its own."""
    tags = {key.removeprefix(made.prefix): row for key, row in sync.listed(client, made.bucket, made.prefix)}
    odd = {}
    for key, file in made.files.items():
        tag = str(tags.get(key, {}).get("ETag", "")).strip('"')
        if tag and tag != (digest := sync.md5(file.path)):
            odd[key] = [tag, digest]
    if (odd or made.unmarked) and odd != sync.noted(client, made.bucket, made.notes):
        client.put_object(Bucket=made.bucket, Key=made.notes, Body=json.dumps(odd).encode(), **s3.encryption(settings))


def _progress(made: sync.UploadPlan) -> Any:
    """A bar of bytes on a terminal; a context that yields the callback for bytes sent."""
    from contextlib import contextmanager

    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = terminal.err()

    @contextmanager
    def shown() -> Iterator[Callable[[int], None]]:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(f"{len(made.changed)} files", total=made.size)
            yield lambda count: progress.advance(task, count)

    return shown()
