"""The live demo: a server that lets browsers show their camera to a trained assistant."""
