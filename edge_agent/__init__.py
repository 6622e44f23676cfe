"""What runs on the box: wire format, grammar, engine, agent loop, bundle reader, evaluation."""
