"""BEiT, and data2vec's vision models, which are built like it."""

from collections.abc import Iterator
from typing import Any

from timm.models.beit import Beit
from torch import nn

from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import Rate
from vitarium.formats._names import NAMES
from vitarium.formats._transformers.base import (
    Counterpart,
    Family,
    MlpConfig,
    layer_norm_eps,
    require,
)
from vitarium.formats._transformers.built import (
    activation,
    drop_path_rate,
    encoder_settings,
    layer_faults,
)

_INIT_VALUE = 0.1  # of the layer scales, before training; transformers' default


class BeitConfig(MlpConfig):
    layer_scale_init_value: float = _INIT_VALUE
    drop_path_rate: Rate = 0.1
    use_mean_pooling: bool = True
    use_absolute_position_embeddings: bool = False
    use_relative_position_bias: bool = False
    use_shared_relative_position_bias: bool = False


def _beit(config: BeitConfig, bare: bool) -> Section:
    """Its pooled output: the mean patch through a norm, else the class token after the last."""
    require(config, hidden_act="gelu")
    if config.layer_scale_init_value < 0:
        raise InvalidInput(f"its layer_scale_init_value is {config.layer_scale_init_value}")
    return choose(
        "architecture",
        "timm",
        model="beit_base_patch16_224",
        **config.sizes(),
        **config.dropout(),
        mlp_ratio=config.mlp_ratio,
        drop_path_rate=config.drop_path_rate,
        global_pool="avg" if config.use_mean_pooling else "token",
        init_values=config.layer_scale_init_value,
        use_abs_pos_emb=config.use_absolute_position_embeddings,
        use_rel_pos_bias=config.use_relative_position_bias,
        use_shared_rel_pos_bias=config.use_shared_relative_position_bias,
        **layer_norm_eps(config.layer_norm_eps, 1e-6),
    )


FAMILIES = {
    "BeitForImageClassification": Family(BeitConfig, _beit),
    "BeitModel": Family(BeitConfig, _beit, has_classifier=False),
    "Data2VecVisionForImageClassification": Family(BeitConfig, _beit),
}


def _faults(model: Any) -> Iterator[str]:
    attention = model.blocks[0].attn
    if attention.q_bias is None:
        yield "its attention has no biases, and there it has"
    pools = {"avg": model.fc_norm, "token": model.norm}
    if not isinstance(pools.get(model.global_pool), nn.LayerNorm):
        yield f"it pools '{model.global_pool}' before its last norm, and there it is after it"
    if activation(model) != "gelu":
        yield f"its activation is {activation(model)}"
    yield from layer_faults(model, 2 * len(model.blocks) + 1)


def _settings(model: Any) -> dict[str, Any]:
    block = model.blocks[0]
    return {
        **encoder_settings(model),
        "intermediate_size": block.mlp.fc1.out_features,
        "layer_scale_init_value": 0.0 if block.gamma_1 is None else _INIT_VALUE,
        "drop_path_rate": drop_path_rate(model.blocks[-1]),
        "use_mean_pooling": model.global_pool == "avg",
        "use_absolute_position_embeddings": model.pos_embed is not None,
        "use_relative_position_bias": block.attn.relative_position_bias_table is not None,
        "use_shared_relative_position_bias": model.rel_pos_bias is not None,
    }


_TABLE = "relative_position_bias_table"
COUNTERPARTS = (
    Counterpart(
        lambda model: type(model) is Beit,
        "beit",
        "BeitForImageClassification",
        "BeitModel",
        NAMES
        | {
            "fc_norm": "pooler.layernorm",
            "rel_pos_bias": "encoder.relative_position_bias",
            "gamma_1": "lambda_1",
            "gamma_2": "lambda_2",
            "attn.q_bias": "attention.attention.query.bias",
            "attn.v_bias": "attention.attention.value.bias",
            f"attn.{_TABLE}": f"attention.attention.relative_position_bias.{_TABLE}",
        },
        _faults,
        _settings,
    ),
)
