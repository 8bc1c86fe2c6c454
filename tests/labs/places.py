"""Where things lie in a checkout."""

from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent
FIXTURES = PROJECT / "tests" / "fixtures"
#: A piece of Fashion-MNIST: 1,000 training and 200 test images.
MINI_FOLDER = FIXTURES / "fashion-mnist"
