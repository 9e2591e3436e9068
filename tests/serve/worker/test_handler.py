"""The boundary as the model server's worker calls it, with its own context class."""

import json
import math

import pytest
from mms.context import Context, RequestProcessor

from kennel import artifact
from kennel.layout import MANIFEST
from kennel_serve.inference import engines
from kennel_serve.inference.model_spec import ModelSpec
from kennel_serve.worker import endpoint, handler


@pytest.fixture
def context(tmp_path, write_model):
    model = write_model(tmp_path / "model")
    return load(model, tmp_path / "private")


def load(model, private):
    """A worker's context, with the model loaded as the server has it checked."""
    private.mkdir()
    manifest = artifact.read_manifest(model)
    ModelSpec.of(model, manifest, engines.choose(manifest, "auto", 0), "application/json").save(private)
    (private / handler.PULSES).mkdir()
    made = Context("model", str(private), None, 4, None, "1.1.11")
    handler.handle(None, made)
    return made


def ask(context, *requests):
    """Statuses and answers of one batch of (body, headers)."""
    context.request_processor = [RequestProcessor(headers) for _, headers in requests]
    answers = handler.handle([{"body": bytearray(body)} for body, _ in requests], context)
    assert [context.get_response_content_type(i) for i in range(len(requests))] == ["application/json"] * len(requests)
    return [(context.get_response_status(i)[0], json.loads(answer)) for i, answer in enumerate(answers)]


def test_a_bad_request_hurts_only_itself(context, photo):
    good = {"Content-Type": "image/jpeg"}
    answers = ask(
        context,
        (photo("red"), good),
        (b"torn", good),
        (photo("blue"), {"content-type": "image/jpeg", "X-Amzn-SageMaker-Custom-Attributes": "top_k=1"}),
        (photo("red"), {**good, "Accept": "text/plain"}),
    )
    assert [status for status, _ in answers] == [200, 400, 200, 406]
    assert answers[0][1]["predictions"][0]["label"] == "red"
    assert [row["label"] for row in answers[2][1]["predictions"]] == ["blue"]
    assert list(answers[1][1]) == ["error"]


def test_probabilities_are_those_of_the_manifests_temperature(context, photo, write_model, tmp_path):
    warm = write_model(tmp_path / "warm")
    row = json.loads((warm / MANIFEST).read_text())
    (warm / MANIFEST).write_text(json.dumps({**row, "temperature": 4.0}))

    def odds(made):
        [(_, answer)] = ask(made, (photo("red"), {"Content-Type": "image/jpeg"}))
        first, second = (share["probability"] for share in answer["predictions"][:2])
        return math.log(first / second)

    plain = odds(context)
    assert plain == pytest.approx(4 * odds(load(warm, tmp_path / "warm-private")), rel=1e-2)


def test_an_unexpected_error_goes_to_the_log_only(context, photo, monkeypatch, caplog):
    monkeypatch.setattr(handler._log, "propagate", True)  # where caplog listens
    monkeypatch.setattr(endpoint.request_body, "write", lambda *_: 1 / 0)
    [(status, answer)] = ask(context, (photo(), {"Content-Type": "image/jpeg"}))
    assert status == 500
    assert answer == {"error": "the prediction failed: the endpoint's log says why"}
    assert "ZeroDivisionError" in caplog.text


def test_a_model_that_cannot_be_loaded_is_an_error_for_the_model_server(tmp_path):
    with pytest.raises(FileNotFoundError):
        handler.handle(None, Context("model", str(tmp_path), None, 1, None, "1.1.11"))
