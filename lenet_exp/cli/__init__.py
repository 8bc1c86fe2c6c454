"""The command line: every command and its flags, the doctor, replay, and this machine's benchmark."""
