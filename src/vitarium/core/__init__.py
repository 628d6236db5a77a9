"""What everything stands on: errors, settings, the registry of plug-ins, randomness, files."""
