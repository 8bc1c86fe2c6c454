"""How a running sweep stands: its state and time left, the live board, plain lines, and what watches it."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(__name__, display="shown", reporter="Reporter ended_as", watch="watch_sweep")
