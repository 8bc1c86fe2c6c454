"""What a user writes: the experiment file, hyper-parameters, space, ablation; which networks are feasible."""
