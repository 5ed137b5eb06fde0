"""The face: command line and settings. Says what to do, does nothing itself."""
