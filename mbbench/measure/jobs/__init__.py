"""What measuring child processes do: one module for each job, run by `mbbench.measure.child`."""
