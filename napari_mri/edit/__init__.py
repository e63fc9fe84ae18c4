"""Label operations as pure functions, and the edit log."""
