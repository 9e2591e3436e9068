"""One photo asked of an endpoint on SageMaker: at once, or through S3 where the endpoint is an asynchronous one."""

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import PurePath
from typing import Any

from kennel.errors import UserError
from kennel_launch.aws import s3, session
from kennel_launch.hosting import specs
from kennel_launch.hosting.endpoint_info import EndpointInfo
from kennel_launch.hosting.rollout import pauses
from kennel_launch.inference import photo_sources, shrink
from kennel_launch.inference.photo_sources import Photo
from kennel_launch.machine.http_probe import Guess, RefusedPhotoError, guesses
from kennel_launch.settings import Settings

# SageMaker gives up on an asynchronous request after 15 minutes by itself; it may have waited before.
_PATIENCE = 1800.0  # seconds
_MB = 1024 * 1024
_NO_CAPACITY = "Inference Component has no capacity"  # a ValidationError as others, known by its sentence alone


@dataclass(frozen=True)
class Question:
    """What is the same for all photos of one command."""

    endpoint: EndpointInfo
    settings: Settings
    top_k: int
    target_model: str
    note: Callable[[str], None]  # a sentence for the user, from any thread
    runtime: Any  # clients, made once: making them is slow and no work for threads
    storage: Any
    stop: threading.Event = field(default_factory=threading.Event)  # set: answers are waited for no longer
    waking: threading.Event = field(default_factory=threading.Event)  # set: that was said


def question(
    endpoint: EndpointInfo, settings: Settings, top_k: int, target_model: str, note: Callable[[str], None]
) -> Question:
    clients = session.client("sagemaker-runtime", settings), session.client("s3", settings)
    return Question(endpoint, settings, top_k, target_model, note, *clients)


def classify(photo: Photo, question: Question) -> list[Guess]:
    """The endpoint's classes for a photo, the most probable first; a photo that is too large is sent smaller.

    Raises:
        RefusedPhotoError: it is not readable, or the endpoint answers with an error.
        UserError: AWS refuses the request itself.
    """
    through_s3, largest = question.endpoint.mode == specs.ASYNC, question.endpoint.largest_body
    if through_s3 and photo.address and _size(photo, question) <= largest:
        return _guesses(_wait(question, photo.address, photo_sources.content_type(photo.address)))
    try:
        body, kind = fitting(photo, largest, question)
    except UserError as error:
        raise RefusedPhotoError(str(error)) from error
    if through_s3:
        return _guesses(_through_s3(question, body, kind, photo.name))
    return _guesses(at_once(question, body, kind))


def fitting(photo: Photo, largest: int, question: Question) -> tuple[bytes, str]:
    """The body to send and its content type; a photo that is too large is made smaller.

    Raises:
        UserError: it cannot be read, or not be made small enough.
    """
    body = photo.read(question.storage)
    if len(body) <= largest:
        return body, photo_sources.content_type(photo.path.name if photo.path else photo.address)
    small = shrink.fit(body, largest)
    question.note(
        f"{photo.name}: {_megabytes(len(body))}, this endpoint takes {_megabytes(largest)}: "
        f"sent as a JPEG of {small.width} × {small.height} pixels, {_megabytes(len(small.body))}"
    )
    return small.body, "image/jpeg"


def at_once(question: Question, body: bytes, kind: str) -> bytes:
    """The answer of an endpoint that is no asynchronous one; where it has no instance, as soon as one has started.

    Raises:
        RefusedPhotoError: the container's own error, or there is no instance after a long time.
        UserError: AWS refuses the request itself.
    """
    deadline = time.monotonic() + _PATIENCE
    for pause in pauses():
        try:
            return _asked(question, body, kind)
        except UserError as error:
            if not question.endpoint.component or _NO_CAPACITY not in str(error):
                raise
        if not question.waking.is_set():
            question.waking.set()
            question.note(
                f"endpoint {question.endpoint.name} has no instance: this request starts one, in some minutes"
            )
        if time.monotonic() > deadline:
            raise RefusedPhotoError(f"no instance after {_PATIENCE / 60:.0f} minutes: see kennel status")
        if question.stop.wait(pause):
            raise RefusedPhotoError("stopped")
    raise AssertionError("unreachable")


def _asked(question: Question, body: bytes, kind: str) -> bytes:
    """The answer of an endpoint that is no asynchronous one.

    Raises:
        RefusedPhotoError: the container's own error.
        UserError: AWS refuses the request itself.
    """
    try:
        with session.translate_errors(f"endpoint {question.endpoint.name}"):
            target = {"TargetModel": question.target_model} if question.target_model else {}
            if question.endpoint.component:
                target["InferenceComponentName"] = question.endpoint.component
            answer = question.runtime.invoke_endpoint(Body=body, **_request(question, kind), **target)
            return bytes(answer["Body"].read())
    except UserError as error:
        cause = error.__cause__
        if session.code_of(cause) != "ModelError":  # type: ignore[arg-type] # None has no code
            raise
        said: dict[str, Any] = getattr(cause, "response", {})
        raise refused(said.get("OriginalStatusCode"), str(said.get("OriginalMessage") or error)) from error


def _through_s3(question: Question, body: bytes, kind: str, name: str) -> bytes:
    settings, storage = question.settings, question.storage
    suffix = ".jpg" if kind == "image/jpeg" else PurePath(name).suffix
    key = f"{settings.prefix}/async/{question.endpoint.name}/input/{uuid.uuid4().hex}{suffix}"
    with session.translate_errors(f"s3://{settings.bucket}/{key}"):
        storage.put_object(Bucket=settings.bucket, Key=key, Body=body, ContentType=kind, **s3.encryption(settings))
    try:
        return _wait(question, f"s3://{settings.bucket}/{key}", kind)
    finally:
        with session.translate_errors(f"s3://{settings.bucket}/{key}"):
            storage.delete_object(Bucket=settings.bucket, Key=key)


def _wait(question: Question, address: str, kind: str) -> bytes:
    """Asks about an object, and waits for the answer or the failure that SageMaker writes."""
    with session.translate_errors(f"endpoint {question.endpoint.name}"):
        accepted = question.runtime.invoke_endpoint_async(InputLocation=address, **_request(question, kind))
    deadline = time.monotonic() + _PATIENCE
    for pause in pauses():
        answer = _object(question.storage, accepted["OutputLocation"])
        if answer is not None:
            return answer
        failure = _object(question.storage, accepted["FailureLocation"]) if accepted.get("FailureLocation") else None
        if failure is not None:
            raise refused(None, failure.decode(errors="replace"))
        if time.monotonic() > deadline:
            raise RefusedPhotoError(
                f"no answer after {_PATIENCE / 60:.0f} minutes: look for {accepted['OutputLocation']}"
            )
        if question.stop.wait(pause):
            raise RefusedPhotoError("stopped")
    raise AssertionError("unreachable")


def _request(question: Question, kind: str) -> dict[str, Any]:
    return {
        "EndpointName": question.endpoint.name,
        "ContentType": kind,
        "Accept": "application/json",
        "CustomAttributes": f"top_k={question.top_k}",
    }


def _object(storage: Any, address: str) -> bytes | None:
    """An object's bytes; None: it is not there yet."""
    bucket, key = s3.split(address)
    try:
        with session.translate_errors(address):
            return bytes(storage.get_object(Bucket=bucket, Key=key)["Body"].read())
    except UserError as error:
        if error.__cause__ and session.code_of(error.__cause__) == "NoSuchKey":  # type: ignore[arg-type]
            return None
        raise


def _size(photo: Photo, question: Question) -> int:
    bucket, key = s3.split(photo.address)
    with session.translate_errors(photo.address):
        return int(question.storage.head_object(Bucket=bucket, Key=key)["ContentLength"])


def _guesses(answer: bytes) -> list[Guess]:
    """
    Raises:
        RefusedPhotoError: another answer than kennel's, as a user's own code may give.
    """
    text = answer.decode(errors="replace")
    try:
        return guesses(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedPhotoError(f"the answer holds no predictions ({text[:200]})") from error


def refused(status: int | None, message: str) -> RefusedPhotoError:
    """The endpoint's own sentence, out of its JSON where it is that."""
    start = message.find('{"error"')
    try:
        sentence = str(json.JSONDecoder().raw_decode(message[start:])[0]["error"]) if start >= 0 else message
    except ValueError:
        sentence = message
    said = " ".join(sentence.split())[:300]
    if status is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        said = f"the endpoint failed with {status}: {said}"
    return RefusedPhotoError(said or "it gives no reason")


def _megabytes(count: int) -> str:
    return f"{count / _MB:.1f} MB"
