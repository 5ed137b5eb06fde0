"""The face: the command line. Says what to do, does nothing itself."""
