"""A zoo as a data set of the Hugging Face hub: its folder, its card, its upload."""
