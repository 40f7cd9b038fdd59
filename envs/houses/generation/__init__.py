"""From a seed to a furnished house with objects in it; `generator` is where to begin."""
