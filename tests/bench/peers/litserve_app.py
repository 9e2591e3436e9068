"""The peer: a LitServe endpoint with a process for each worker, and its faster queue."""

import os
from pathlib import Path
from typing import Annotated

import litserve
from classifier import Classifier
from fastapi import Depends, Request


async def body(request: Request) -> bytes:
    return await request.body()


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.classifier = Classifier(Path(os.environ["MODEL"]))

    # LitServe itself reads JSON and forms; a photo's bytes come to it as one of FastAPI's dependencies.
    def decode_request(self, request: Annotated[bytes, Depends(body)]) -> bytes:
        return request

    def predict(self, photo: bytes) -> list[dict[str, object]]:
        return self.classifier.predict(photo)

    def encode_response(self, output: list[dict[str, object]]) -> dict[str, object]:
        return {"predictions": output}


if __name__ == "__main__":
    api = Api(api_path="/invocations")
    workers = int(os.environ["WORKERS"])
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, fast_queue=True)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
