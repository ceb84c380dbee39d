"""`bundle init --template`: which templates there are, and how each is fitted to graphs at hand."""
