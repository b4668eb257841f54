"""Reports of stored results: their content, the formats they are written in, and their verification."""
