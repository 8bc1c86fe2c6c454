"""What happens in an attempt's process: the network, its gradients, the optimiser, the loop over epochs."""
