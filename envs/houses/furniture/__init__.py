"""Pieces of furniture and the small objects that agents are asked for."""
