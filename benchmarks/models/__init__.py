"""Models that the benchmarks measure, built or trained by the scripts beside them."""
