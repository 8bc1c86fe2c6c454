"""Inside that process: the network, its optimizers, the loop over epochs, and what is measured."""
