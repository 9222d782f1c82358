"""Right and wrong: whether the text of a real answer is what its users may expect."""
