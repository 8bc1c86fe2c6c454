"""What every wing stands on: errors and exit codes, whole files, random streams, paths, plain records."""
