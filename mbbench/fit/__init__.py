"""Predictions for MobileNetV1 of any width and resolution from few measurements, and the largest that fits."""
