"""The trial contract, its checker, and environments that meet it around what others made."""
