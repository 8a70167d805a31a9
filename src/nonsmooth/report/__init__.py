"""Plain results and their writers: text, JSON, pictures."""
