"""Studies: a question, a plan that is written first, and one page that answers it. Each is one function in the module of its name."""
