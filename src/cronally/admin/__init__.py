"""The admin socket: HTTP and JSON over a Unix socket, and the client that speaks to it."""
