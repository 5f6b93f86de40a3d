"""What the model may know: features, computed by pure transforms and kept in one store."""
