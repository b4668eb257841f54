"""Compress image classifiers and measure the effect on real hardware."""
