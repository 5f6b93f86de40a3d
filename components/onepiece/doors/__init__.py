"""What all doors share, over REST and gRPC: how an error is told, how a body is read."""
