"""A checkpoint of a zoo by name: a model, and the epoch after which it is meant."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

MODEL_ID = "^[0-9a-f]{12}$"
"""As the folder of a model is called: no model of a foreign zoo comes of a path outside of it."""


class CheckpointRef(NamedTuple):
    """A model after an epoch; as text `ID@EPOCH`, which `Zoo.at` reads.

    In JSON it is `{"model": ID, "epoch": EPOCH}`, of which pydantic checks both.
    """

    model: str
    epoch: int
    """0 is the state before training of a model that is grown; of imported ones it is what they say
    (`Model.initial_epoch`)."""

    def __str__(self) -> str:
        return f"{self.model}@{self.epoch}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> "CoreSchema":
        from pydantic_core import core_schema  # what lists models does without pydantic

        model = core_schema.typed_dict_field(core_schema.str_schema(pattern=MODEL_ID))
        epoch = core_schema.typed_dict_field(core_schema.int_schema(ge=0))
        schema = {"model": model, "epoch": epoch}
        fields = core_schema.typed_dict_schema(schema, extra_behavior="forbid")
        read = core_schema.no_info_after_validator_function(lambda values: cls(**values), fields)
        write = core_schema.plain_serializer_function_ser_schema(lambda ref: ref._asdict())
        return core_schema.no_info_before_validator_function(
            lambda ref: ref._asdict() if isinstance(ref, cls) else ref, read, serialization=write
        )
