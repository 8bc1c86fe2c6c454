"""What every wing stands on: errors with their exit codes, whole files, random streams, plain records."""
