"""The zoo, its table of models, and the page of each."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from vitarium.explorer.served_zoo import JSON, Served
from vitarium.page.answers.models import ModelPage, ModelsTable, Summary
from vitarium.page.model_page import model_page, zoo_summary

router = APIRouter(prefix="/api", tags=["models"])
ModelName = Annotated[str, Path(description="Of a model: its id, or a beginning of it.")]


@router.get("/zoo.json")
def summary(served: Served) -> Summary:
    """The zoo's name and number of models; the stamp changes whenever anything of it does."""
    token = served.access.token  # the browser hands it to no other page
    stamp = served.stamp()
    return {
        **zoo_summary(served.zoo),
        "can_write": True,
        "embeddings": True,
        "behavior": True,
        "token": token,
        "stamp": stamp,
        "growth": served.growth.state(),
    }


@router.get("/models.json", response_model=ModelsTable)
def models(served: Served) -> Response:
    """Every model with its factors, metrics and measured numbers, column by column."""
    return Response(served.table.content(), media_type=JSON)


@router.get("/models/{name}.json")
def model(served: Served, name: ModelName) -> ModelPage:
    """All that is known of a model."""
    served.worker.warm_up()  # whoever reads the page may want to see the model run next
    return model_page(served.zoo, name)
