"""Box kits: a folder from which a bare machine installs the agent, without a network and compiling nothing."""
