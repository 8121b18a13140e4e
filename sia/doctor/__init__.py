"""Whether this machine, its folders and its cluster can carry a study: one module a part of that, no torch."""
