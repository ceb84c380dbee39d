"""The client: numpy in, numpy out, over ZeroMQ."""
