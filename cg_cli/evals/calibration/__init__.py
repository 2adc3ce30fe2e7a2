"""Which keep leaves the answers as they are: losses of clips, bounds on their mean, and the certificate of a preset."""
