"""What `make package` and `make deploy` say when they cannot go on: a sentence for the person in front of them."""


class DeploymentError(Exception):
    """The package or the deployment cannot be made, or did not come out as it should."""


class Refused(DeploymentError):
    """The function works; what it was asked for, it does not do."""
