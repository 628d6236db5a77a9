"""BEiT, and data2vec's vision models, which are built like it."""

from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, choose
from vitarium.formats._foreign_json import Rate
from vitarium.formats._transformers.base import Family, MlpConfig, layer_norm_eps, require


class BeitConfig(MlpConfig):
    layer_scale_init_value: float = 0.1
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
