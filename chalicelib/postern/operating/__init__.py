"""What an operator can do, a module a subject: each gives its actions and duties (operating.operator) by name."""
