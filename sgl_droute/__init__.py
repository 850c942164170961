"""A router for fleets of SGLang diffusion workers."""
