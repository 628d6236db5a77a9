"""What pages of all studies are made of: page, figures, trees, words for numbers."""
