"""What people look at: terminal tables, figures, learning curves, the HTML page, activations."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    activations="draw_activations",
    console="print_ablation print_bench print_leaderboard print_rows print_shapes",
    curves="curves_picture curves_table",
    notebook="Results",
    page="write_report",
)
