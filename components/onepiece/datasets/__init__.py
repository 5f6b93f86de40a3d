"""Public data sets and a user's own files, read into events and a catalogue."""
