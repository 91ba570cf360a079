"""Reads diffusers schedulers as linear maps of noise and predictions."""
