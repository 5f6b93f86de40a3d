"""What happened: the event schema, the log that keeps it, and the histories folded from it."""
