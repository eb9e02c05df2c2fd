"""The endpoint: engines behind one protocol, a Ray Serve application, access, autoscaling, a chat page."""
