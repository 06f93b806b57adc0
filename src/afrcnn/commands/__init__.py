"""The commands of the command line, as functions."""
