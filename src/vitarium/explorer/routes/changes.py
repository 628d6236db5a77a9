"""Conditions in SQL, and the words that the page writes beside models: tags and notes.

These are POST requests, which need the page's own token (see `security`).
"""

import json

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from vitarium.explorer.routes.models import ModelName
from vitarium.explorer.served_zoo import JSON, Served
from vitarium.page.answers.models import Matches, ModelPage
from vitarium.page.model_page import model_page

router = APIRouter(prefix="/api", tags=["changes"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Condition(_Body):
    """As `vitarium ls --where` takes it."""

    where: str = Field(description="SQL over the columns of models, such as `lr < 0.01`.")


class Tagging(_Body):
    """A tag to write, or to remove."""

    tag: str
    remove: bool = False


class Naming(_Body):
    """A tag to write beside several models, or to remove from them."""

    tag: str
    models: list[str] = Field(min_length=1, description="Ids, or beginnings of them.")
    remove: bool = False


class Note(_Body):
    """A note to write; an empty one removes it."""

    note: str


@router.post("/query", response_model=Matches)
def query(served: Served, condition: Condition) -> Response:
    """The models that fulfill a condition, in a DuckDB without files and with limits."""
    ids = served.table.matching(condition.where)
    # not by pydantic, which would look at thousands of texts
    return Response(json.dumps({"ids": ids}, separators=(",", ":")), media_type=JSON)


@router.post("/models/{name}/tag")
def tag(served: Served, name: ModelName, tagging: Tagging) -> ModelPage:
    """Tag a model, or remove a tag."""
    change = served.zoo.untag if tagging.remove else served.zoo.tag
    change(name, tagging.tag)
    served.table.expire()
    return model_page(served.zoo, name)


@router.post("/tags")
def name_models(served: Served, naming: Naming) -> Matches:
    """Tag several models, or remove the tag; the ids of those that were changed."""
    change = served.zoo.untag if naming.remove else served.zoo.tag
    ids = change(naming.models, naming.tag)
    served.table.expire()
    return {"ids": ids}


@router.post("/models/{name}/note")
def note(served: Served, name: ModelName, note: Note) -> ModelPage:
    """Write a model's note."""
    served.zoo.note(name, note.note)
    served.table.expire()
    return model_page(served.zoo, name)
