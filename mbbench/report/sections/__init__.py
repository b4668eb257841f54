"""The parts of a report, one module each: pure functions from results to tables and plots."""
