"""What is known about the words of a report: banks of statements and their retrieval. Imports no model."""
