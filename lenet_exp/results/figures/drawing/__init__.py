"""What figures are drawn with: scales, HTML beside plotly, and pictures whose texts are measured first."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    blocks="Grid draw_images draw_parallel",
    elements="TICK_CHARACTERS colour_bar html_text plotly_text small_images swatch tick_text",
    marks="draw_axes",
    scales="ParallelAxis between log_ticks shortened",
    sheet="BAR Box COLUMN DASHES DIMENSION DPI GAP GREY HEADING INK MARGIN MARKERS PT Sheet "
    "TEXT line_height shortened text_width wrapped",
)
