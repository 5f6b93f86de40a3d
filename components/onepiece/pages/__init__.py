"""How a page of results looks: style, frame and drawings; knows nothing of what it shows."""
