"""What happens to a crawl that is killed, stopped, starved of disk, or finds its state damaged."""
