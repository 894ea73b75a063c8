"""Ray: the actors that prove, and the pool that hands chunks to them."""
