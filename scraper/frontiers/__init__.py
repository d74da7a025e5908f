"""Where requests wait: implementations of ``contracts.Frontier``."""
