"""OnePiece: generative recommendation from a shop's events to a measured experiment."""
