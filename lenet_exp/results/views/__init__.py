"""What people look at: terminal tables, the gallery of figures, learning curves, activations."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    activations="draw_activations",
    console="Column cell_text print_ablation print_leaderboard print_rows print_shapes print_table row_label",
    curves="curves_picture curves_table",
    notebook="Results",
)
