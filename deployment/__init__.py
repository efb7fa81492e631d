"""Packages Postern and deploys it into an AWS account; nothing of it runs there."""
