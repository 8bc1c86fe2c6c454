"""How a picture of a figure is drawn: in pixels, with texts that are measured before they are placed."""
