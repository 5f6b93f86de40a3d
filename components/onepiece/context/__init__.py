"""From one request's signals to the tokens OnePiece reads; one builder for training and serving."""
