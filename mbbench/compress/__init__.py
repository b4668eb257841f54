"""Methods that make a network smaller or faster. Each takes a module or a graph and returns one."""
