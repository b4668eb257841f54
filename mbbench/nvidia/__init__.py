"""NVIDIA's GPUs through NVIDIA's bindings of CUDA's runtime and of NVML."""
