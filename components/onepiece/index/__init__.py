"""Item vectors and the search over them."""
