"""What fetches: implementations of ``contracts.Downloader``."""
