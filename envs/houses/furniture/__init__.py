"""Pieces of furniture (`catalogue` lists them) and the small objects that agents look for."""
