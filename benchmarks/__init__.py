"""What measures speed, memory and scale: ``python -m benchmarks``. The figures are in docs/performance.md."""
