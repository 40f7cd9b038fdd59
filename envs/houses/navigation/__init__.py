"""Where agents can be (begin with `grid`), how they move, how far goals are, and the expert."""
