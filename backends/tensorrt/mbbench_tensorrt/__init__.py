"""TensorRT and TensorRT-RTX as an mbbench backend."""
