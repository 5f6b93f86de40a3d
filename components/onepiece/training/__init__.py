"""From logged events to a bundle: examples, losses, the loop and the evaluator."""
