"""A fuzzer: drawn pipelines of diffusers, exported and compared with diffusers."""
