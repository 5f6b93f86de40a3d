"""Who gets which arm, and what it changed: assignment, outcomes, statistics, report."""
