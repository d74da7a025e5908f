"""What measures speed, memory and scale. Run by hand; the figures are in docs/."""
