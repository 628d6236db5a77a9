"""The zoo on disk: models and checkpoints; what recipes are made of is imported when used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
