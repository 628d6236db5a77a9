"""Recover which models of a heap descend from which, from their weights alone.

A method is a plug-in: one file here that registers a function with `registry.lineage`,

    @lineage("mother", config=MoTHer, paper="Horwitz et al. 2025, arXiv 2405.18432")
    def mother(config: MoTHer, heap: Heap, trees: int | None) -> Forest: ...

`trees` is how many trees there are, None where nobody knows. A method looks at weights and at
nothing else: names and the order of models mean nothing to it.
"""
