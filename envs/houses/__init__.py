"""Furnished houses: generator, batched renderer, navigation and simulator."""
