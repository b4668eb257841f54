"""What changed between two measurements: differences, noise, the gate's decision, stored results."""
