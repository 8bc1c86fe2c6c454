"""The command line: every command and its flags, the doctor, replay, and the machine's benchmark."""
