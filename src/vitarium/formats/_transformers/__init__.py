"""Vision models of Hugging Face's transformers that timm has, too: settings and tensors."""
