"""The range of decay rates of moving averages."""

from typing import Annotated

from pydantic import Field

Decay = Annotated[float, Field(ge=0, lt=1)]
