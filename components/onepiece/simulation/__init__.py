"""Demand replay: real demand, simulated browsing, for closed-loop tests and the demo."""
