"""Whether something changed: differences, noise, the gate's decision, stored results."""
