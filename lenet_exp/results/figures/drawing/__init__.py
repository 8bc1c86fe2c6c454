"""How a picture of a figure is drawn: in pixels, with texts that are measured before they are placed."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    blocks="Grid draw_images draw_parallel",
    marks="draw_axes",
    sheet="BAR Box COLUMN DASHES DIMENSION DPI GAP GREY HEADING INK MARGIN MARKERS PT Sheet "
    "TEXT line_height shortened text_width wrapped",
)
