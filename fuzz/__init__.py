"""Throws damaged files at the readers: every one must end in a volume or in a `MriError`."""
