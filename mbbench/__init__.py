"""Compress image classifiers and measure what the compression buys on real hardware."""
