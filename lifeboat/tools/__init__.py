"""One module for each outside program or protocol."""
