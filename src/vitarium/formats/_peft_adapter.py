"""What peft calls the files of an adapter, and the tensors in them."""

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
"""Before the names of all tensors: of the wrapper, and of the model in it."""
