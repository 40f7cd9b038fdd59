"""ExtObjNav in Habitat's scenes; the simulator is in `worker`, under an interpreter of its own."""
