"""The truth: which trials were drawn, what each gave, how the next is chosen, and where that is kept."""
