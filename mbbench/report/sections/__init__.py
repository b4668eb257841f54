"""Parts of reports: one module per subject, each of pure functions from results to tables, figures and sections."""
