"""From the schedules of other systems to Cronally's: text in, schedules and what will be different out. No I/O."""
