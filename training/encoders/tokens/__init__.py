"""Texts as an encoder reads them: tokens, lengths, features and packs."""
