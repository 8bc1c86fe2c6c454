"""Which LeNet is better than the baseline, by how much, and how sure are we?"""

__version__ = "0.1.0"
