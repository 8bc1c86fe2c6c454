"""The command line: every command and its flags, the doctor, replay, and this machine's benchmark."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(__name__, program="commands main")
