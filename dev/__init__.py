"""What maintainers run: checks, documents, measurements. No part of a deployment."""
