"""Side-by-side measurements, their raw results and plots."""
