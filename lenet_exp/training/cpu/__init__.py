"""LeNet's layers and gradients written out for a CPU, several times faster than PyTorch's own."""
