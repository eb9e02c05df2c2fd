"""The endpoint: engines behind one protocol, a Ray Serve application, access, a chat page."""
