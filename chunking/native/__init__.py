"""Native circuits: what a chunk's nodes become before ezkl reads them (docs/adr/0021)."""
