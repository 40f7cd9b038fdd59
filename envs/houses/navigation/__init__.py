"""Where agents can be, how they move, how far goals are, and the expert."""
