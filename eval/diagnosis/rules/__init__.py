"""The rules of a diagnosis, by what they are about."""
