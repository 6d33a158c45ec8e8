"""Reading the user's files: formats, lines, ids, numbers and texts, each refused with its place."""
