"""Raw skeleton data in: one module a format, each a `Source` that yields recordings."""
