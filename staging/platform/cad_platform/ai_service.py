"""The AI service: lists the models, loads them, answers queries."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from .models import ModelDamaged, Models
from .settings import settings

log = logging.getLogger("cad.ai")

models = Models(settings().path("MODELS"), tuple(settings().text("REQUIRED_MODELS").split(",")))


@asynccontextmanager
async def lifespan(_: FastAPI):
    for model_id in models.ids():
        try:
            log.info("Loaded %s", models.get(model_id).id)
        except ModelDamaged as error:
            # It goes on with the others and says so at /health.
            log.error("Not loaded: %s", error)
    yield


app = FastAPI(title="CAD AI Platform: models", lifespan=lifespan)


class Question(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    query: str


@app.get("/models")
def list_models() -> dict:
    listed = []
    for model_id in models.ids():
        try:
            model = models.get(model_id)
        except ModelDamaged as error:
            listed.append({"id": model_id, "loaded": False, "error": str(error)})
        else:
            listed.append(
                {
                    "id": model_id,
                    "loaded": True,
                    "sha256": model.sha256,
                    "parameters": model.parameters,
                    "labels": len(model.labels),
                }
            )
    return {"models": listed}


@app.post("/ai/inference")
def infer(question: Question) -> dict:
    if question.model_id not in models.ids():
        raise HTTPException(404, f"there is no model {question.model_id}")
    try:
        model = models.get(question.model_id)
    except ModelDamaged as error:
        raise HTTPException(503, str(error)) from error
    answer = model.answer(question.query)
    return {
        "model_id": model.id,
        "query": question.query,
        "answer": answer.label,
        "score": answer.score,
    }


@app.get("/health")
def health() -> JSONResponse:
    parts = {}
    for model_id in models.ids():
        try:
            models.get(model_id)
            parts[model_id] = "ok"
        except ModelDamaged as error:
            parts[model_id] = str(error)
    good = bool(parts) and all(state == "ok" for state in parts.values())
    return JSONResponse(
        {"status": "ok" if good else "failing", "parts": parts}, status_code=200 if good else 503
    )
