"""What pages of all studies are made of: page, figures, trees, words for numbers."""

from vitarium.core.extras import require

require("study", "a study")
