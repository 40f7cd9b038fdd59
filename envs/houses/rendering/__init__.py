"""The batched renderer; `renderer` is where to begin."""
