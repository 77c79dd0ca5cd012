"""What Cronally knows without looking: rules, times and decisions. Standard library only; no clock, no I/O."""
