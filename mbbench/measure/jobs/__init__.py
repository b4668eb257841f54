"""Jobs of the measuring child process, one module each; `mbbench.measure.child` runs them."""
