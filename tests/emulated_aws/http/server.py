"""The server: each request is recognized, recorded, judged, and answered by us or by moto. Knows no service's rules."""

import json
import logging
import sys
import threading
import traceback
from collections.abc import Iterable
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from moto.moto_api._internal.models import moto_api_backend
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server

from . import checks, control, recognition, services, validation
from .account import OWN_KEY, Account
from .errors import AwsError

CONTROL = "/_emulated/"


class Handler(WSGIRequestHandler):
    """Connections stay open, as AWS's do."""

    protocol_version = "HTTP/1.1"


class Emulator:
    """The WSGI application; its state is the account of the test that runs."""

    def __init__(self, url: str, scratch: Path) -> None:
        self._url, self._scratch = url, scratch
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._account = Account(url, scratch)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        try:
            found = self._control(request) if request.path.startswith(CONTROL) else self._answer(request)
        except AwsError as error:
            request.get_data()  # the connection stays open: nothing may be left in it
            found = _refusal(error, recognition.read(request))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            why = AwsError("InternalFailure", traceback.format_exc().splitlines()[-1], 500)
            found = _refusal(why, recognition.read(request))
        answer: Iterable[bytes] = found(environ, start_response)
        return answer

    def close(self) -> None:
        self._account.close()

    def _answer(self, request: Request) -> Any:
        whole = "X-Amz-Target" in request.headers or request.mimetype == "application/json"
        if whole:
            request.get_data()  # read before it is known who answers: moto reads it again
        call = recognition.read(request)
        account = self._account
        if call.key != OWN_KEY:
            account.record(call.service, call.operation, services.request_of(call))
            checks.allowed(account, call)
            if call.model is not None:
                validation.check(call.model, call.params)
        found = services.answer(account, call)
        if found is not None:
            return found if isinstance(found, Response) else _json(found)
        if whole or call.service not in ("s3", ""):
            request.environ["wsgi.input"] = BytesIO(request.get_data())
        return self._moto

    def _control(self, request: Request) -> Response:
        """What the tests themselves ask of the server; no part of AWS."""
        what, fields = request.path.removeprefix(CONTROL), json.loads(request.get_data() or b"{}")
        if what != "reset":
            return _json(control.answer(self._account, what, fields))
        try:
            self._account.close()
        finally:
            moto_api_backend.reset()
            self._account = Account(self._url, self._scratch)
        self._account.furnish()
        return _json({})


def serve(scratch: Path) -> None:
    """Until standard input ends; prints the address first."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    emulator: list[Emulator] = []
    server = make_server("127.0.0.1", 0, lambda *wsgi: emulator[0](*wsgi), threaded=True, request_handler=Handler)
    server.daemon_threads = True  # type: ignore[attr-defined] # idle connections must not hold us
    url = f"http://127.0.0.1:{server.server_port}"
    emulator.append(Emulator(url, scratch))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    print(url, flush=True)
    try:
        sys.stdin.read()
    finally:
        emulator[0].close()
        server.shutdown()


def _json(content: dict[str, Any]) -> Response:
    return Response(json.dumps(content, default=_plain), mimetype="application/x-amz-json-1.1")


def _refusal(error: AwsError, call: recognition.Call) -> Response:
    known = recognition.service_model(call.service)
    protocol = known.metadata["protocol"] if known else "json"
    if protocol in ("rest-xml", "query"):  # S3, IAM, STS
        fault = f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error>"
        body = fault if protocol == "rest-xml" else f"<ErrorResponse>{fault}</ErrorResponse>"
        return Response(body, error.status, mimetype="text/xml")
    answer = _json({"__type": error.code, "message": error.message, "Message": error.message, **error.members})
    answer.status_code = error.status
    answer.headers["x-amzn-errortype"] = error.code
    return answer


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.timestamp()
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
