"""What is recorded of a model's layers, as one call: vectors of measures, and attention."""

from vitarium.evaluation.attention import watch
from vitarium.evaluation.features import Vectorizer, rebatch


def layer_vectors(model, batches, measures, layers=None):
    """By measure, the vectors of each layer, of images that are batched as the first one says."""
    vectorizer = Vectorizer(model, measures, layers)
    for batch in rebatch(batches, measures[0].config.batch_size):
        vectorizer.add(batch)
    return vectorizer.vectors()


def attention_maps(model, images):
    """Each block's probabilities, [b, heads, tokens, tokens]."""
    maps = []
    watch(model, images, lambda name, attention: maps.append(attention))
    return maps
