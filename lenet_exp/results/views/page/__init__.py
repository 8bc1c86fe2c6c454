"""The HTML page of an experiment: verdict, cost, figures and tables, in one file that may be shared."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(__name__, answer="answer_of", report="write_report")
