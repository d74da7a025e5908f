"""What writes items to files: implementations of ``contracts.Exporter``."""
