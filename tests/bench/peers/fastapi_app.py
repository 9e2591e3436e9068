"""The peer: a plain FastAPI endpoint, by `uvicorn fastapi_app:app --workers N`."""

import os
from pathlib import Path

from classifier import Classifier
from fastapi import FastAPI, Request

classifier = Classifier(Path(os.environ["MODEL"]))
app = FastAPI()


@app.post("/invocations")
async def invocations(request: Request) -> dict[str, object]:
    return {"predictions": classifier.predict(await request.body())}
