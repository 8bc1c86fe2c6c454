"""What people look at: terminal tables, figures, learning curves, the HTML page, activations."""
