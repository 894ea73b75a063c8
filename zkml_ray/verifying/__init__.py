"""What a verifier does, and what it reads and writes; knows neither Ray nor a proving stage."""
